"""The arguments of the callback that the core's settings do not know."""

from __future__ import annotations

import os
from typing import Any

from nan_callbacks.errors import ConfigurationError


def check_arguments(events_path: Any, log_every_n_steps: Any, **switches: Any) -> None:
    """Check them.

    Raises:
        ConfigurationError: What was expected, what was received, what to do.
    """
    every = log_every_n_steps
    if every is not None and (type(every) is not int or every < 1):
        raise ConfigurationError.of(
            "log_every_n_steps", "a whole number >= 1 or None", every, "None logs at the end of epochs only."
        )
    if events_path is not None and not isinstance(events_path, str | os.PathLike):
        raise ConfigurationError.of(
            "events_path", "a path or None", events_path, "Such as 'logs/events.jsonl'; None writes no file."
        )
    for name, value in switches.items():
        if not isinstance(value, bool):
            raise ConfigurationError.of(name, "True or False", value, "Choose one of the two.")
