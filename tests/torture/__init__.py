"""Torture: kills, faults and bad inputs on tiny runs; nothing may be lost or silently wrong.

``make torture`` runs all of it, ``test_short.py`` a little of each kind. A trial is tried in a
folder of its own. What it may cost to be wrong is stated in docs/reliability.md.
"""
