"""Who is calling: a fit that broke off in another callback cannot tell us, and must not leave us at work."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import FrameType
from typing import Any

import keras
import numpy as np


def inside_fit(model: Any) -> bool:
    """Whether a call of this model's ``fit`` is under way in this thread, and not one of ``train_on_batch`` within."""
    for frame in _callers():
        name = frame.f_code.co_name
        if name in ("fit", "train_on_batch") and frame.f_locals.get("self") is model:
            return name == "fit"
    return False


def fit_frame(model: Any) -> FrameType | None:
    """The innermost call of this model's ``fit``; None if there is none."""
    for frame in _callers():
        if frame.f_code.co_name == "fit" and frame.f_locals.get("self") is model:
            return frame
    return None


def arrays_of_fit(model: Any) -> tuple[Any, ...] | None:
    """The arrays that this model's ``fit`` was called with, as ``(x, y, sample_weight)``; None if it got no arrays."""
    frame = fit_frame(model)
    if frame is None:
        return None
    given = tuple(frame.f_locals.get(name) for name in ("x", "y", "sample_weight"))
    leaves = [leaf for leaf in keras.tree.flatten(given) if leaf is not None]
    return given if leaves and all(isinstance(leaf, np.ndarray) for leaf in leaves) else None


def callback_list() -> keras.callbacks.CallbackList | None:
    """The list of callbacks that is calling one of its members; None if something else is."""
    for frame in _callers():
        caller = frame.f_locals.get("self")
        if isinstance(caller, keras.callbacks.CallbackList):
            return caller
    return None


def _callers() -> Iterator[FrameType]:
    """The frames of the calling function's callers, the nearest first."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        yield frame
        frame = frame.f_back
