"""Which order makes the best representation, at equal operations.

``plan`` says what each row trains. ``evaluate`` has what ``experiments.orders`` calls.
"""
