"""Linear models trained on low-bit data, as scikit-learn estimators."""
