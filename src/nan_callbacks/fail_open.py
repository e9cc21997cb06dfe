"""Our own failure must never kill a training run: report it once, loudly, and step aside."""

from __future__ import annotations

import functools
import logging
import traceback
from collections.abc import Callable
from typing import Any, Protocol, TypeVar, cast

from nan_callbacks.errors import TrainingStoppedError

LOGGER = logging.getLogger("nan_callbacks")

Hook = TypeVar("Hook", bound=Callable[..., Any])


class StepsAside(Protocol):
    """A callback that can take itself out of the run."""

    strict: bool

    @property
    def is_aside(self) -> bool:
        """Whether it has stepped aside already."""
        ...

    def step_aside(self) -> None:
        """Undo every change made to the run's objects and do nothing from now on."""
        ...


def fails_open(hook: Hook) -> Hook:
    """Wrap a hook of a :class:`StepsAside` so that an error inside it ends the guard, not the run.

    ``TrainingStoppedError`` is meant for the user and passes; with ``strict`` every error does.
    """

    @functools.wraps(hook)
    def guarded(self: Any, *args: Any, **kwargs: Any) -> Any:
        if self.is_aside:
            return None
        try:
            return hook(self, *args, **kwargs)
        except TrainingStoppedError:
            raise
        except Exception as error:
            if self.strict:
                raise
            LOGGER.error(
                "NaNGuard failed in %s and steps aside; the training goes on without it. "
                "Please report this with the lines below. (%s: %s)\n%s",
                hook.__name__,
                type(error).__name__,
                error,
                traceback.format_exc(),
            )
            self.step_aside()
            return None

    return cast(Hook, guarded)
