"""Who is calling: a fit that broke off in another callback cannot tell us, and must not leave us at work."""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any


def inside_fit(model: Any) -> bool:
    """Whether a call of this model's ``fit`` is under way in this thread, and not one of ``train_on_batch`` within."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        name = frame.f_code.co_name
        if name in ("fit", "train_on_batch") and frame.f_locals.get("self") is model:
            return name == "fit"
        frame = frame.f_back
    return False
