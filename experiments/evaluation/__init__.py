"""What is measured of runs: a package for every command that has several files, named like it.

In each, ``evaluate`` has what the command calls, and ``result`` what it returns; some have
``options`` and ``picture``. They are ``compare``, ``probe``, ``knowing``, ``orders``, ``caption``,
``human`` and ``ids``. ``recognition`` is what is known after k fixations: ``probe``, ``knowing``
and studies ask it.

``options`` are those of all commands that take a run. ``scanpaths`` says who scans what, ``draw``
draws it, and ``report`` compares, probes and draws at the end of a training. ``equal_compute``
counts operations; ``study`` compares two learners, by ``experiments.studies``; ``decode`` goes with
``generation``.

``run_result`` keeps results apart that have other options, ``kept`` keeps answers, ``intervals``
makes all intervals, and ``pages`` writes records into RESULTS.md, README.md and docs.
"""
