"""The QuantizedDataset store: data sets at a few bits per value."""
