"""What is measured of runs: a package for every command that has several files, named like it.

In each, ``evaluate`` has what the command calls, and ``result`` what it returns; some have
``options`` and ``picture``. They are ``compare``, ``probe``, ``knowing``, ``orders``, ``caption``,
``human`` and ``ids``. ``recognition`` is what is known after k fixations: ``probe``, ``knowing``
and studies ask it.

``options`` are those of all commands that take a run. ``scanpaths`` says who scans what, ``draw``
draws it, and ``report`` compares, probes and draws at the end of a training. ``curves`` are errors
over fixations, ``questions`` says what images can be asked, and ``equal_compute`` counts
operations. ``read`` and ``decode``, the latter with ``generation``, have the commands of their name
in one file, and so have ``clients`` and ``torture_result`` their records; ``exported`` goes with
``experiments.export``.

``run_result`` keeps results apart that have other options, ``kept`` keeps answers, ``progress``
says how far a command is, ``seeds`` joins runs of several, and ``intervals`` makes all intervals.
"""
