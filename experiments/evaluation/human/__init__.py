"""Scanpaths beside those of people.

``reading`` reads the viewers, ``study`` fits what training images say of them, and ``contenders``
scan. ``rows`` and ``scores`` compare, ``means`` are over runs, and ``findings`` say it in words.
``evaluate`` has what ``experiments.human`` calls.
"""
