"""What models know of an image after k fixations, over seeds: seeing and teaching.

``plan`` says what is trained; ``measure`` asks a run the ``question`` and keeps the answer, and
``tuned`` that of fine-tuned copies; ``rows`` are means over runs. ``evaluate`` has what
``experiments.knowing`` calls.
"""
