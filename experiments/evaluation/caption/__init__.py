"""How much of a caption is known after k fixations.

``asking`` asks one run and keeps its answers, by ``likelihood`` and ``retrieval``; ``means`` are
over runs. ``evaluate`` has what ``experiments.caption`` calls.
"""
