"""Benchmarks: ratios against named peers, measured alternately in one run. ``python -m benchmarks NAME``."""
