"""A stopwatch for somebody's own part of a step."""

import functools
import time
from collections.abc import Callable
from typing import Any

Function = Callable[..., Any]


class Stopwatch:
    """CPU time spent inside the functions of one owner, without the functions of others that they call.

    Attributes:
        seconds: The time so far.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self._running = False

    def own(self, function: Function) -> Function:
        """The same function, whose time counts; a call from within another own function is counted once."""

        @functools.wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            if self._running:
                return function(*args, **kwargs)
            self._running = True
            began = time.process_time()
            try:
                return function(*args, **kwargs)
            finally:
                self.seconds += time.process_time() - began
                self._running = False

        return timed

    def foreign(self, function: Function) -> Function:
        """The same function, whose time does not count although an own function calls it."""

        @functools.wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            began = time.process_time()
            try:
                return function(*args, **kwargs)
            finally:
                if self._running:
                    self.seconds -= time.process_time() - began

        return timed
