"""The arguments that every callback has beside the core's settings."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from nan_callbacks.errors import ConfigurationError


def check_arguments(
    events_path: Any,
    log_every_n_steps: Any,
    checkpoint_snapshots: Any,
    ignore: Any = (),
    health_every_n_steps: Any = None,
    **switches: Any,
) -> None:
    """Check them.

    Raises:
        ConfigurationError: What was expected, what was received, what to do.
    """
    every = log_every_n_steps
    if every is not None and (type(every) is not int or every < 1):
        raise ConfigurationError.of(
            "log_every_n_steps", "a whole number >= 1 or None", every, "None keeps the framework's own cadence."
        )
    if health_every_n_steps is not None and (type(health_every_n_steps) is not int or health_every_n_steps < 1):
        raise ConfigurationError.of(
            "health_every_n_steps", "a whole number >= 1 or None", health_every_n_steps, "None takes no samples."
        )
    if events_path is not None and (not isinstance(events_path, str | os.PathLike) or Path(events_path).is_dir()):
        remedy = "Such as 'logs/events.jsonl'; None writes no file."
        raise ConfigurationError.of("events_path", "the path of a file or None", events_path, remedy)
    if checkpoint_snapshots not in ("auto", "always", "never"):
        raise ConfigurationError.of(
            "checkpoint_snapshots",
            "one of 'auto', 'always', 'never'",
            checkpoint_snapshots,
            "Choose one of these words.",
        )
    if isinstance(ignore, str) or not all(isinstance(code, str) for code in ignore):
        raise ConfigurationError.of("ignore", "a list of codes", ignore, "Such as ['DATA502'].")
    for name, value in switches.items():
        if not isinstance(value, bool):
            raise ConfigurationError.of(name, "True or False", value, "Choose one of the two.")
