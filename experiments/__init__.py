"""The scripts: train, compare, probe, draw, and keep records."""

import sys
from types import TracebackType

from foveate.names import check_own

if sys.argv[:1] == ["-m"]:
    # A command begins to import, which takes seconds: Ctrl-C then is no mistake with a traceback.
    _before = sys.excepthook

    def _say_interrupted(
        kind: type[BaseException], error: BaseException, trace: TracebackType | None
    ) -> None:
        if issubclass(kind, KeyboardInterrupt):
            sys.stderr.write("interrupted\n")
        else:
            _before(kind, error, trace)

    sys.excepthook = _say_interrupted

check_own("envs", "agents")
