"""Scores of the environments, by their ids. ``evaluate`` has what ``experiments.ids`` calls."""
