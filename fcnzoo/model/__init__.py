"""A network: heads on a backbone; image in, scores, logits, labels or the loss out."""
