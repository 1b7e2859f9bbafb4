"""What the training scripts share: run folders, the training loop, methods, comparisons and plots."""
