"""Benchmarks behind ``experiments.bench``, one a file; ``timing`` measures and holds the result."""
