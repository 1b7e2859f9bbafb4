"""One script per claim: ``python -m benchmarks.linear`` and the like; JSON out, plots from the JSON."""
