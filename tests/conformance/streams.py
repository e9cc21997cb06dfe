"""Number streams: what a run would measure step by step, written down."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from nan_callbacks.core import StepObservation

EPOCH = 70
"""Batches of an epoch."""
RATE = 0.5
"""The learning rate of every stream: a power of two, so that scaled rates are the same in float32 and float64."""
NAN, INF = math.nan, math.inf


@dataclass(frozen=True)
class Update:
    """One update of one optimizer."""

    loss: float | None
    grad_norm: float | None


@dataclass(frozen=True)
class Step:
    """One batch."""

    updates: tuple[Update, ...]
    """In the order of the optimizers."""
    jump: float = 1.0
    size: float = 1.0
    """Every parameter has this norm before the step; NaN for parameters that an earlier update broke."""
    batch_finite: bool = True
    loss_scale: float | None = None


@dataclass(frozen=True)
class Stream:
    """A run in numbers."""

    steps: list[Step]
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def optimizers(self) -> int:
        return len(self.steps[0].updates)

    def place(self, index: int) -> tuple[int, int]:
        """Epoch and batch of a step."""
        return divmod(index, EPOCH)


def name(index: int) -> str:
    """Name of an optimizer's one parameter."""
    return f"weight{index}"


def single(value: float) -> float:
    """A number as every framework can hold it."""
    return float(np.float32(value))


def healthy(count: int, seed: int = 0, optimizers: int = 1) -> list[Step]:
    """Losses, gradient norms and running variances of a run that has arrived, and weights that do not move much."""
    draw = np.random.default_rng(seed)
    return [
        Step(
            updates=tuple(
                Update(single(draw.lognormal(0.0, 0.4)), single(draw.lognormal(0.0, 0.5))) for _ in range(optimizers)
            ),
            jump=single(draw.lognormal(0.0, 0.05)),
            size=single(draw.lognormal(1.0, 0.02)),
        )
        for _ in range(count)
    ]


def recorded(observations: list[StepObservation], settings: dict[str, Any]) -> Stream:
    """What a run of one optimizer has shown to the core, as a stream."""
    steps: list[Step] = []
    for seen in observations:
        size = seen.param_norm or (steps[-1].size if steps else 1.0)
        numbers = [None if each is None else single(each) for each in (seen.loss, seen.grad_norm)]
        jump = 1.0 if seen.statistics_jump is None else single(seen.statistics_jump)
        steps.append(Step((Update(*numbers),), jump, single(size), seen.batch_finite is not False))
    return Stream(steps, settings)


Change = Callable[[Step], Step]


def measured(loss: float | None, grad_norm: float | None, optimizer: int = 0, **others: Any) -> Change:
    """One optimizer measures these numbers instead of its own."""

    def change(step: Step) -> Step:
        updates = list(step.updates)
        updates[optimizer] = Update(loss, grad_norm)
        return replace(step, updates=tuple(updates), **others)

    return change


def times(loss: float = 1.0, grad_norm: float = 1.0, **others: Any) -> Change:
    """Every update's numbers are multiplied."""

    def change(step: Step) -> Step:
        updates = [
            Update(
                None if each.loss is None else single(each.loss * loss),
                None if each.grad_norm is None else single(each.grad_norm * grad_norm),
            )
            for each in step.updates
        ]
        return replace(step, updates=tuple(updates), **others)

    return change


def at(steps: list[Step], where: Iterable[int], change: Change) -> list[Step]:
    """Some of the steps are changed."""
    where = set(where)
    return [change(step) if index in where else step for index, step in enumerate(steps)]


def diverging(count: int, start: int) -> list[Step]:
    """From some step on the weights grow by a tenth at each step and the loss does not fall."""
    grown = [replace(step, size=single(1.1 ** max(index - start, 0))) for index, step in enumerate(healthy(count))]
    return at(grown, range(start + 4, count), times(loss=2.0))


nan_batch = measured(NAN, NAN, batch_finite=False)
nan_from_within = measured(NAN, NAN)
broken_weights = measured(NAN, NAN, size=NAN)
spike = times(1e6, 1e6)
higher_level = times(1e4, 1e4)

SNAPSHOTS_OFTEN = {"snapshot_every_n_steps": 10, "probation_steps": 5}


def fuzzy(seed: int, optimizers: int) -> Stream:
    """Healthy steps with everything that can go wrong strewn in, alone and in runs."""
    draw = np.random.default_rng(seed)
    steps = healthy(300, seed, optimizers)
    faults = [nan_batch, nan_from_within, broken_weights, spike, higher_level, times(loss=1e5), times(grad_norm=1e5)]
    faults += [measured(NAN, 1.0), measured(-INF, INF), measured(None, None), measured(0.0, 0.0), measured(-3.0, 2.0)]
    faults += [lambda s: replace(s, jump=1e4), lambda s: replace(s, jump=NAN), lambda s: replace(s, size=1e3)]
    if optimizers == 1:
        faults += [lambda s: replace(s, loss_scale=1024.0), measured(1.0, INF, loss_scale=1024.0)]
        faults += [measured(1.0, INF, loss_scale=0.5)]
    for _ in range(25):
        start, length = int(draw.integers(0, 300)), int(draw.choice([1, 1, 2, 3, 4, 9, 25]))
        steps = at(steps, range(start, start + length), faults[draw.integers(len(faults))])
    settings = {
        **SNAPSHOTS_OFTEN,
        "max_rollbacks": int(draw.integers(0, 6)),
        "max_consecutive_skips": int(draw.integers(1, 5)),
        "lr_recovery_steps": int(draw.choice([7, 40])),
        "on_spike": str(draw.choice(["skip_step", "skip_step", "observe"])),
        "on_non_finite": str(draw.choice(["skip_step", "skip_step", "skip_step", "observe"])),
    }
    return Stream(steps, settings)


STREAMS = {
    "healthy and noisy": Stream(healthy(300)),
    "spikes": Stream(at(healthy(200), [2, 30, 31, 90, 150], spike)),
    "spikes of the loss or of the gradient alone": Stream(
        at(at(healthy(200), [40, 120], times(loss=1e5)), [60, 121, 180], times(grad_norm=1e5))
    ),
    "jumps of running variances": Stream(
        at(at(healthy(120), [50, 90], lambda step: replace(step, jump=1e3)), [70], lambda s: replace(s, jump=INF))
    ),
    "NaN in the data": Stream(at(healthy(200), [0, 20, 21, 22, 23, 24, 100, *range(140, 150)], nan_batch)),
    "NaN from within": Stream(at(healthy(200), [5, 60, 61, 62, 150], nan_from_within)),
    "NaN from within for good": Stream(at(healthy(200), range(130, 200), nan_from_within)),
    "NaN in the data for good": Stream(at(healthy(200), range(130, 200), nan_batch)),
    "NaN in the loss alone": Stream(at(healthy(200), [30, 80, *range(120, 160)], measured(NAN, 1.0))),
    "divergence": Stream(diverging(260, start=140)),
    "a new level": Stream(at(healthy(260), range(200, 260), higher_level)),
    "broken weights": Stream(at(healthy(200), [120], broken_weights)),
    "broken weights when a snapshot is due": Stream(
        at(at(healthy(120), [40, 47], broken_weights), [46, 48, 49], nan_from_within), SNAPSHOTS_OFTEN
    ),
    "broken weights when an epoch begins": Stream(at(healthy(120), [EPOCH], broken_weights), SNAPSHOTS_OFTEN),
    "broken weights for good": Stream(at(healthy(120), range(55, 120), broken_weights), SNAPSHOTS_OFTEN),
    "losses around zero": Stream(
        [
            replace(step, updates=(Update(single(step.updates[0].loss - 1.0), step.updates[0].grad_norm),))
            for step in at(healthy(200), [100, 150], times(loss=1e4))
        ]
    ),
    "no loss to be seen, no gradient to be had": Stream(
        at(at(healthy(150), range(60), measured(None, 1.0)), range(90, 120), measured(0.5, None))
    ),
    "a learning rate that returns": Stream(
        at(healthy(200), [60, 61, 62], nan_from_within), {**SNAPSHOTS_OFTEN, "lr_recovery_steps": 25}
    ),
    "a loss scaler at work": Stream(
        at(
            at(healthy(150), range(150), lambda step: replace(step, loss_scale=65536.0)),
            [0, 40, 41, 100],
            measured(1.0, INF, loss_scale=65536.0),
        )
    ),
    "a loss scale that collapses": Stream(
        at(healthy(60), range(30, 60), lambda step: measured(1.0, INF)(replace(step, loss_scale=0.5)))
    ),
    "two adversaries": Stream(
        at(at(healthy(200, optimizers=2), [50, 51, 52], measured(NAN, NAN, 1)), [120], measured(1e6, 1e6, 0))
    ),
    "observed only": Stream(
        at(at(healthy(200), [40, 90, 91], spike), [60, 150], nan_batch),
        {"on_spike": "observe", "on_non_finite": "observe", "on_divergence": "observe"},
    ),
    "stop at the first NaN": Stream(at(healthy(60), [30], nan_batch), {"on_non_finite": "stop"}),
    **{f"everything at once, {seed}": fuzzy(seed, 1 + seed % 2) for seed in range(12)},
}
