"""What is measured of runs. A command's file has its name; ``*_result`` holds what it returns.

``options`` are those of all commands that take a run. ``compare`` with ``scanpaths`` (who scans
what), ``diagnostics``, ``findings``, ``saccade_costs`` and ``compare_result``; ``probe`` with its
options, views and result, and ``probe_questions`` (what it can be asked); ``draw``. ``report`` does
these three at the end of a training.

``orders`` with ``orders_plan`` (what each row trains), ``equal_compute`` and ``orders_result``;
``study`` (two learners, by ``experiments.studies``); ``decode`` with ``generation``; ``read``.

``run_result`` keeps results apart that have other options, ``intervals`` makes all intervals, and
``pages`` writes records into RESULTS.md, README.md and docs.
"""
