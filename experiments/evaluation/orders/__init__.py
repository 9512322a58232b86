"""Which order makes the best representation, at equal operations.

``plan`` says what each row trains, and ``counted`` for how long. ``evaluate`` has what
``experiments.orders`` calls.
"""
