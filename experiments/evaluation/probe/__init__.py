"""What frozen features of a run, or its fine-tuned weights, know of the classes.

``questions`` says what the images can be asked, ``views`` what of the model is probed. ``evaluate``
has what ``experiments.probe`` calls.
"""
