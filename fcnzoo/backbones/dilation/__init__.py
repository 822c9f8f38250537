"""Strides taken out of a network, later convolutions dilated, by a rule."""
