"""Grids of trainings: what ``python -m experiments.study`` carries out.

``grid`` says what a grid is, ``loading`` finds one by name and ``shipped`` holds those of this
project. ``job`` trains and asks one seed of a cell: ``runner`` starts many of them, here or by way
of ``cluster``. ``asking`` is what a run is asked, with ``pictures`` of its scans and ``compute``.
``result`` is what a grid found and ``deciding`` which cells go on; ``study`` does all of it in
order, and ``page`` writes it as one HTML file.
"""
