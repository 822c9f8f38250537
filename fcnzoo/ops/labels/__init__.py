"""Labels and counts from low-resolution scores."""
