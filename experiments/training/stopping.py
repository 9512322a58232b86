"""Signals that ask a training to stop: it ends its iteration, writes a checkpoint, and says so.

The second signal acts as it would without us. Workers of a stream inherit the handlers by fork and
leave the decision to their parent.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from types import FrameType

NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2")
"""Ctrl-C, what ``kill`` and batch systems send, a closed terminal, and notices of preemption or,
of submitit, of time that is up."""
ECHO_S = 1.0
"""torchrun hands a signal on that its processes have received by themselves: it counts once."""


LAUNCHER_CHECK_S = 1.0
"""Between looks for torchrun."""


def end_with_launcher() -> None:
    """End this process when the one that started it, torchrun, is gone, even if it was killed."""
    launcher = os.getppid()

    def watch() -> None:
        while os.getppid() == launcher:
            time.sleep(LAUNCHER_CHECK_S)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


class StopSignals:
    """While entered, the first signal is noted in ``received`` instead of ending the process."""

    received: int
    """Number of the signal; 0 as long as there was none."""

    def __init__(self, *, has_echo: bool = False) -> None:
        self.received = 0
        self.ignored_until = 0.0
        self.has_echo = has_echo
        self.process = os.getpid()
        self.before: dict[int, signal._HANDLER] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():  # Others may not.
            for name in NAMES:
                number = getattr(signal, name, None)  # Windows lacks some.
                # Ignored ones stay so, as nohup wants.
                if number is not None and signal.getsignal(number) not in (None, signal.SIG_IGN):
                    self.before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self.process:
            if number == signal.SIGTERM:
                os._exit(128 + number)
            return
        if not self.received:
            self.received = number
            self.ignored_until = time.monotonic() + ECHO_S * self.has_echo
            # Unlike print, safe wherever the program happens to be.
            line = f"{name_of(number)}: ending the iteration; once more stops at once\n"
            os.write(2, f"\n{line}".encode())
        elif time.monotonic() >= self.ignored_until:
            signal.signal(number, self.before[number])
            os.kill(os.getpid(), number)


def name_of(number: int) -> str:
    """Return the name of a signal as its sender knows it."""
    return "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
