"""How well one run's model knows an image from what has been seen of it.

``paths`` are the scanpaths, ``probes`` the read-outs, ``asking`` trains and asks them. ``evaluate``
has ``recognize``, which ``experiments.probe --fixations`` calls. Docs name it
``experiments.evaluation.recognition.recognize``, which stays.
"""

from foveate.lazy import importing

__getattr__ = importing(__name__, {"recognize": f"{__name__}.evaluate"})
