"""A stopwatch for somebody's own part of a step."""

import functools
import time
from collections.abc import Callable
from typing import Any

Function = Callable[..., Any]


class Stopwatch:
    """CPU time spent inside the functions of one owner, without the functions of others that they call.

    Args:
        clock: Reads the time in seconds: of the process, or of the thread where others do the framework's work.

    Attributes:
        seconds: The time so far.
    """

    def __init__(self, clock: Callable[[], float] = time.process_time) -> None:
        self.seconds = 0.0
        self._clock = clock
        self._running = False
        self._began = 0.0

    def own(self, function: Function) -> Function:
        """The same function, whose time counts, also where a function of others calls it."""
        return self._switching(function, running=True)

    def foreign(self, function: Function) -> Function:
        """The same function, whose time does not count although an own function calls it."""
        return self._switching(function, running=False)

    def _switching(self, function: Function, *, running: bool) -> Function:
        @functools.wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            if self._running is running:
                return function(*args, **kwargs)
            self._switch(running)
            try:
                return function(*args, **kwargs)
            finally:
                self._switch(not running)

        return timed

    def _switch(self, running: bool) -> None:
        now = self._clock()
        if self._running:
            self.seconds += now - self._began
        self._running, self._began = running, now
