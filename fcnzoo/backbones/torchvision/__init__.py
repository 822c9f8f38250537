"""Networks of torchvision, cut open."""
