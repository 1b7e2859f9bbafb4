"""Linear models on low-bit data: the demo and its data."""
