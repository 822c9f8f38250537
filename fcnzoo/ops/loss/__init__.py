"""The loss from low-resolution scores."""
