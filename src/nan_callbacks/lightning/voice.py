"""What the guard says and logs: through the progress bar's print, the callback metrics and every logger."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch

LOGGER = logging.getLogger("nan_callbacks")
PREFIX = "nan_callbacks/"
OWN_GRADIENTS = frozenset({"DeepSpeedStrategy", "FSDPStrategy"})
"""Strategies of either namespace whose optimizers do not read ``p.grad``."""


def speaker(trainer: Any, *, verbose: bool) -> Callable[[str], None] | None:
    """A function that prints one message without breaking the progress bar; None if nothing shall be printed.

    Args:
        trainer: The trainer of the fit.
        verbose: False for silence. Ranks other than zero are silent anyway.
    """
    if not verbose or not trainer.is_global_zero:
        return None

    def say(message: str) -> None:
        bar = getattr(trainer, "progress_bar_callback", None)
        if bar is not None and getattr(bar, "is_enabled", False):
            bar.print(f"NaNGuard: {message}")
        else:
            LOGGER.warning("NaNGuard: %s", message)

    return say


def publish(trainer: Any, values: dict[str, float], *, to_loggers: bool) -> None:
    """Put values where users look for metrics, under ``nan_callbacks/…``.

    Args:
        trainer: The trainer of the fit.
        values: Numbers by short name.
        to_loggers: Whether loggers get them too, or only ``trainer.callback_metrics``.
    """
    named = {PREFIX + name: value for name, value in values.items()}
    trainer.callback_metrics.update({name: torch.tensor(float(value)) for name, value in named.items()})
    if not to_loggers:
        return
    step = trainer.fit_loop.epoch_loop._batches_that_stepped
    for logger in trainer.loggers:
        logger.log_metrics(named, step=step)


def announce_limits(trainer: Any) -> None:
    """Say once, before the first step, if the strategy keeps the guard from doing all of its work.

    Args:
        trainer: The trainer of the fit.
    """
    name = type(trainer.strategy).__name__
    if name in OWN_GRADIENTS and trainer.is_global_zero:
        LOGGER.warning(
            "NaNGuard: %s steps on flattened gradients of its own. Steps are measured on this rank's part of them, and "
            "dropping one may have no effect; rollback and learning rate are not exact. Use DDP for the full guard.",
            name,
        )
