"""A trained network at work: predict, tile, measure, make faster, export."""
