"""The command line: torchext quantize, train, predict, info."""
