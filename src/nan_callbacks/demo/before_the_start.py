"""The act before the first step: three mistakes in one set-up, and what the checkup says of it."""

from __future__ import annotations

import importlib
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nan_callbacks.demo.frameworks import DemoFramework
from nan_callbacks.demo.muted import muted_stderr

HUGE = 2.0
"""Standard deviation of the weights in the spoiled set-up: four to seven times what their layers need."""


@dataclass(frozen=True)
class SetUp:
    """Data and start of a small net of tanh layers that classifies wines."""

    features: NDArray[np.float32]
    """Shape [178, 13]."""
    labels: NDArray[np.int64]
    """Shape [178]; the net has three outputs."""
    weight_std: float | None
    """Standard deviation of all weights; None: as the framework draws them."""


LookOver = Callable[[SetUp], Any]
"""What a framework provides: builds the net, returns the report of its checkup."""


def set_ups() -> tuple[SetUp, SetUp]:
    """The spoiled set-up, and the same put right."""
    import sklearn.datasets

    data: Any = sklearn.datasets.load_wine()
    features, labels = data.data.astype(np.float32), data.target.astype(np.int64)
    scaled = (features - features.mean(0)) / features.std(0)
    return SetUp(features, labels + 1, HUGE), SetUp(scaled.astype(np.float32), labels, None)


def perform(framework: DemoFramework, columns: int) -> str:
    """What the checkup says before and after the mistakes are put right.

    Args:
        framework: Where; it is installed and prepared.
        columns: To stay within.
    """
    with muted_stderr():
        look_over: LookOver = importlib.import_module(f"{framework.module}_checkup").look_over
        spoiled, mended = map(look_over, set_ups())
    heading = (
        "0. before the first step: a net of tanh layers on wines as they come (alcohol in %, proline in hundreds), "
        f"weights drawn with a standard deviation of {HUGE:g}, classes counted from 1"
    )
    lines = [textwrap.fill(heading, columns, subsequent_indent="   ")]
    for line in spoiled.describe().splitlines():
        indent = "   " + " " * (len(line) - len(line.lstrip()))
        lines.append(textwrap.fill(line.strip(), columns, initial_indent=indent, subsequent_indent=indent + "  "))
    lines.append(f"   with the three put right: {mended.describe()}")
    return "\n".join(lines)
