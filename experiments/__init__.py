"""The scripts: train, compare, probe, draw, and keep records."""
