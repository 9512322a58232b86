"""What frozen features of a run, or its fine-tuned weights, know of the classes.

``views`` says what of the model is probed, and ``tuning`` fine-tunes copies by fixations.
``picture`` draws recognition. ``evaluate`` has what ``experiments.probe`` calls.
"""
