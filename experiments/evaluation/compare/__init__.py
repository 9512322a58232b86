"""Orders compared by error over fixations: the policy, its controls, and others.

``contenders`` scan and are measured, ``diagnostics`` look for collapse, ``findings`` say what was
found, and ``saccade_costs`` judges with the cost of ways. ``evaluate`` has what
``experiments.compare`` calls.
"""
