"""Averaged copies of the weights (EMA, SWA): part of the state, and not to be fed with a step that did not happen."""

from __future__ import annotations

from typing import Any

from torch import nn

from nan_callbacks.lightning.namespace import callback_types


def averaging_callbacks(trainer: Any) -> list[Any]:
    """The trainer's ``WeightAveraging`` callbacks (``EMAWeightAveraging`` is one), of either namespace."""
    return [each for each in trainer.callbacks if isinstance(each, callback_types("WeightAveraging"))]


def averaged_modules(trainer: Any) -> dict[str, nn.Module]:
    """The averaged copies by a stable name."""
    return {
        f"average{index}": callback._average_model
        for index, callback in enumerate(averaging_callbacks(trainer))
        if isinstance(getattr(callback, "_average_model", None), nn.Module)
    }


def withhold_update(trainer: Any) -> None:
    """Keep every averaging callback from counting the step that is being dropped.

    They update when ``global_step`` has grown past the step of their last update; ``global_step`` grows after a
    dropped step as well.
    """
    _set_latest_update(trainer, trainer.global_step + 1)


def forget_update(trainer: Any) -> None:
    """Keep every averaging callback from counting the restored weights as the result of the last step."""
    _set_latest_update(trainer, trainer.global_step)


def _set_latest_update(trainer: Any, step: int) -> None:
    for callback in averaging_callbacks(trainer):
        if hasattr(callback, "_latest_update_step"):
            callback._latest_update_step = step
