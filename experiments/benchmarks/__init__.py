"""Benchmarks behind ``experiments.bench``."""
