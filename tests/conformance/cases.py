"""What every detector is held to: its symptom, its delay, and how it may speak early in a run.

A new detector needs an entry here; the tests find the detector by themselves and fail without one.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from nan_callbacks.core import StepObservation

PARAM_NORM_CADENCE = 16


@dataclass(frozen=True)
class Case:
    """The contract of one detector."""

    code: str
    """Code of the finding."""
    symptom: Callable[[int], dict[str, Any]]
    """What a step measures instead of its usual numbers, by the number of steps since the symptom began."""
    delay: int
    """Steps from the beginning of the symptom within which the finding must come; 1: at once."""
    judges_from_the_start: bool = False
    """Whether the first step may be judged: what is measured needs no history to be wrong."""
    onset: int = 304
    """Step at which the symptom is shown. 304 = 19 * 16: the parameter norm is measured at this step."""
    dropped: dict[str, Any] | None = None
    """A step of this detector's own kind that the gate drops; None if the symptom is not one of single steps."""


CASES = {
    "NonFiniteDetector": Case(
        code="NAN101",
        symptom=lambda since: {"grad_norm": math.nan},
        delay=1,
        judges_from_the_start=True,
        dropped={"grad_norm": math.inf, "loss": math.nan},
    ),
    "GradientSpikeDetector": Case(
        code="GRAD201",
        symptom=lambda since: {"grad_norm": 1e4},
        delay=1,
        dropped={"grad_norm": 1e4},
    ),
    "LossSpikeDetector": Case(
        code="LOSS401",
        symptom=lambda since: {"loss": 1e4},
        delay=1,
        dropped={"loss": 1e4},
    ),
    "StatisticsJumpDetector": Case(
        code="ACT301",
        symptom=lambda since: {"statistics_jump": 1e4},
        delay=1,
        dropped={"statistics_jump": 1e4},
    ),
    "BlowUpDetector": Case(
        code="LOSS402",
        symptom=lambda since: {"loss": 1e4, "param_norm": 100.0},
        delay=1,
        onset=1,  # it judges the start of a run, and nothing else
        dropped={"loss": 1e9, "grad_norm": 1e9},
    ),
    "DivergenceDetector": Case(
        code="LOSS402",
        symptom=lambda since: {"param_norm": 100.0 if since % PARAM_NORM_CADENCE == 0 else None},
        # The loss has 48 steps to answer the growth, the norm is measured every 16, its mark may be one late.
        delay=48 + 2 * PARAM_NORM_CADENCE,
        dropped={"loss": 1e9, "grad_norm": 1e9},
    ),
    "LossScaleDetector": Case(
        code="OPT603",
        symptom=lambda since: {"loss_scale": 0.5},
        delay=1,
        judges_from_the_start=True,
    ),
}


def stationary(steps: int, seed: int = 0) -> Iterator[StepObservation]:
    """A healthy run that has arrived: every quantity is log-normal around its level."""
    draw = np.random.default_rng(seed)
    losses = draw.lognormal(0.0, 0.5, steps)
    grad_norms = draw.lognormal(0.0, 0.7, steps)
    jumps = draw.lognormal(0.0, 0.05, steps)
    norms = 10.0 * draw.lognormal(0.0, 0.05, steps)
    for step in range(steps):
        yield StepObservation(
            step=step,
            loss=float(losses[step]),
            grad_norm=float(grad_norms[step]),
            statistics_jump=float(jumps[step]),
            param_norm=float(norms[step]) if step % PARAM_NORM_CADENCE == 0 else None,
            loss_scale=65536.0,
        )
