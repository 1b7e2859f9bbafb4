"""Runnable recipes: ``python -m training.linear.demo`` and the like. Not installed with the package."""
