"""Ctrl-C and SIGTERM during a run: the first asks, the second ends at once.

Libraries take signals for themselves and lose what handlers raise, and calls into a cluster whose
processes were told to leave as well may never return. So signals are also read from the pipe that the
interpreter writes them to, by a thread that ends the process when the run does not.
"""

import os
import select
import signal
import threading
from types import FrameType, TracebackType
from typing import Self

SIGNALS = (signal.SIGINT, signal.SIGTERM)
LIMIT_SECONDS = 9.5
POLL_SECONDS = 0.1
SHOW_CURSOR = b"\x1b[?25h\n"


class Interruption:
    """Whether the run was asked to stop, while used as a context; `exit_code` is 130 or 143."""

    def __init__(self) -> None:
        self.number: int | None = None
        self.at_once = False  # while there is nothing to save, the first signal is the last
        self._over = threading.Event()

    @property
    def asked(self) -> bool:
        """Whether a signal has come."""
        return self.number is not None

    @property
    def exit_code(self) -> int:
        """What a shell expects of a process that a signal ended."""
        assert self.number is not None
        return 128 + self.number

    def __enter__(self) -> Self:
        self._before = [signal.getsignal(number) for number in SIGNALS]
        self._come, self._bell = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._bell_before = signal.set_wakeup_fd(self._bell, warn_on_full_buffer=False)
        self._watch = threading.Thread(target=self._wait, name="signals", daemon=True)
        self._watch.start()
        self.listen()
        return self

    def listen(self) -> None:
        """Take the signals, also again from a library that took them."""
        for number in SIGNALS:
            signal.signal(number, self._note)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        self._watch.join()
        signal.set_wakeup_fd(self._bell_before)
        for number, handler in zip(SIGNALS, self._before, strict=True):
            signal.signal(number, handler)
        os.close(self._come)
        os.close(self._bell)

    def _note(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - as signal has it
        self.number = self.number or number

    def _wait(self) -> None:
        """Note the first signal; end the process at the second, or when its time is up."""
        first = True
        while not self._over.is_set():
            ready, _, _ = select.select([self._come], [], [], POLL_SECONDS)
            come = (
                [number for number in os.read(self._come, 64) if number in SIGNALS] if ready else []
            )
            for number in come:
                self.number = self.number or number
                if self.at_once or not first:
                    self.leave()
                first = False
                limit = threading.Timer(LIMIT_SECONDS, self.leave)
                limit.daemon = True
                limit.start()

    def leave(self) -> None:
        """End the process here and now; Ray's processes and the keeper notice that it is gone."""
        if not self._over.is_set():
            if os.isatty(1):
                os.write(1, SHOW_CURSOR)
            os._exit(128 + (self.number or signal.SIGTERM))
