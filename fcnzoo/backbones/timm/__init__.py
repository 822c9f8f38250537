"""Networks of timm, cut open."""
