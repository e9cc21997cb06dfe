"""One table of what can go wrong and what a guarded run makes of it. Every framework is held to the same table."""

from dataclasses import dataclass, field, replace
from typing import Any

from tests.conformance.faults import (
    Fault,
    all_targets,
    fully_masked,
    impossible_class,
    input_value,
    inputs_times,
    target_value,
    zero_row,
)
from tests.conformance.tasks import TASKS, Batch


@dataclass(frozen=True)
class Optimizer:
    """How a run updates its weights."""

    kind: str
    """``sgd``, ``momentum`` (0.9), ``adam`` (epsilon 1e-7), ``adam_without_epsilon``, or ``layerwise``: each layer's
    gradient is divided by its norm, without anything that keeps a norm of zero from dividing."""
    rates: tuple[tuple[int, float], ...]
    """Learning rates and the update from which each of them holds."""

    def rate(self, update: int) -> float:
        """Learning rate of an update."""
        return next(rate for start, rate in reversed(self.rates) if update >= start)


@dataclass(frozen=True)
class Scenario:
    """One run and what is expected of it."""

    task: str
    optimizer: Optimizer
    story: tuple[str, ...] = ()
    """Findings and deeds in order, as ``Record.story`` writes them."""
    steps: int = 60
    fault: Fault | None = None
    at: tuple[int, ...] = ()
    """Batches that have the fault."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Settings of the core."""
    diagnose: str = "on_incident"
    """``never``: cuts of the learning rate are those of the ladder."""
    tried: bool = False
    """Whether trials in the laboratory decide something, so that the numbers of the steps do not tell all."""
    never_drawn: tuple[int, ...] | None = None
    """The end is bitwise that of a run without these batches at ``lr_scale``. None: no such run exists."""
    as_at_first: bool = False
    """The parameters are bitwise those that the run began with."""
    skipped: int = 0
    rollbacks: int = 0
    lr_scale: float = 1.0
    attempted: int | None = None
    """Steps until the guard ended the run; None: it went through."""
    finite: bool = True
    raises: bool = False

    def batches(self) -> list[Batch]:
        """The data with their faults."""
        batches = TASKS[self.task].batches(self.steps)
        return [self.fault(b) if self.fault and i in self.at else b for i, b in enumerate(batches)]

    def reference(self) -> tuple["Scenario", list[Batch]]:
        """The run that this one must equal in the end: other data, and from the start the rates that are left."""
        dropped = set(self.never_drawn or ())
        rates = tuple((start, rate * self.lr_scale) for start, rate in self.optimizer.rates)
        batches = [batch for index, batch in enumerate(self.batches()) if index not in dropped]
        return replace(self, optimizer=replace(self.optimizer, rates=rates)), batches


def sgd(rate: float) -> Optimizer:
    return Optimizer("sgd", ((0, rate),))


def adam(rate: float = 0.02) -> Optimizer:
    return Optimizer("adam", ((0, rate),))


def momentum(rate: float = 0.02) -> Optimizer:
    return Optimizer("momentum", ((0, rate),))


NAN, INF = float("nan"), float("inf")
SNAPSHOTS_OFTEN = {"snapshot_every_n_steps": 10, "probation_steps": 5}
THREE_ROLLBACKS = {"max_rollbacks": 3}


def _skips(codes: str, first: int, end: int) -> tuple[str, ...]:
    return tuple(f"{step}: {codes}, skip_step" for step in range(first, end))


def _rollback(codes: str, step: int, *, to: int, rate: float) -> tuple[str, ...]:
    return f"{step}: {codes}, rollback", f"{step}: back to {to}", f"{step}: rate at {rate:g}"


SCENARIOS = {
    # -- nothing is wrong ----------------------------------------------------------------------------------------
    "a healthy line": Scenario("linear", sgd(0.05), steps=100, never_drawn=()),
    "a healthy network": Scenario("regression", adam(), steps=100, never_drawn=()),
    "a healthy convolution": Scenario("images", momentum(0.05), never_drawn=()),
    "a healthy recurrent network": Scenario("sequences", adam(), never_drawn=()),
    "a healthy attention mask of minus infinity": Scenario("tokens", sgd(0.3), never_drawn=()),
    "a healthy divergence": Scenario("distributions", sgd(0.2), never_drawn=()),
    # -- one batch -----------------------------------------------------------------------------------------------
    "NaN in an input": Scenario(
        "regression",
        adam(),
        fault=input_value(NAN, (2, 1)),
        at=(30,),
        story=("30: NAN101, skip_step",),
        skipped=1,
        never_drawn=(30,),
    ),
    "NaN in the first batch of all": Scenario(
        "regression",
        adam(),
        fault=input_value(NAN, (2, 1)),
        at=(0,),
        story=("0: NAN101, skip_step",),
        skipped=1,
        never_drawn=(0,),
    ),
    "NaN in a pixel, on its way into running statistics": Scenario(
        "images",
        momentum(0.05),
        fault=input_value(NAN, (2, 1, 1, 0)),
        at=(30,),
        story=("30: NAN101, skip_step",),
        skipped=1,
        never_drawn=(30,),
    ),
    "infinity in a sequence, which tanh hides from the loss": Scenario(
        "sequences",
        adam(),
        fault=input_value(INF, (2, 1, 0)),
        at=(30,),
        story=("30: NAN101, skip_step",),
        skipped=1,
        never_drawn=(30,),
    ),
    "NaN in a target": Scenario(
        "regression",
        momentum(),
        fault=target_value(NAN),
        at=(30,),
        story=("30: NAN101, skip_step",),
        skipped=1,
        never_drawn=(30,),
    ),
    "a mask that hides everything": Scenario(
        "tokens",
        sgd(0.3),
        fault=fully_masked,
        at=(30,),
        story=("30: NAN101, skip_step",),
        skipped=1,
        never_drawn=(30,),
    ),
    "NaN in the gradient alone": Scenario(
        "distances",
        adam(),
        fault=zero_row,
        at=(30,),
        story=("30: NAN101, skip_step",),
        skipped=1,
        never_drawn=(30,),
    ),
    "NaN in the loss alone": Scenario(
        "distributions",
        sgd(0.2),
        fault=impossible_class,
        at=(30,),
        story=("30: NAN102, skip_step",),
        skipped=1,
        never_drawn=(30,),
    ),
    "a wild input": Scenario(
        "linear",
        sgd(0.05),
        fault=input_value(1e6, (2, 1)),
        at=(30,),
        story=("30: GRAD201 LOSS401, skip_step",),
        skipped=1,
        never_drawn=(30,),
    ),
    "a wild target": Scenario(
        "regression",
        adam(),
        fault=target_value(1e6),
        at=(30,),
        story=("30: GRAD201 LOSS401, skip_step",),
        skipped=1,
        never_drawn=(30,),
    ),
    "images in another unit, which normalisation hides": Scenario(
        "images",
        momentum(0.05),
        fault=inputs_times(1e4),
        at=(30,),
        story=("30: ACT301, skip_step",),
        skipped=1,
        never_drawn=(30,),
    ),
    # -- several in a row ----------------------------------------------------------------------------------------
    "five non-finite batches in a row are the data's fault": Scenario(
        "regression",
        adam(),
        fault=input_value(NAN, (2, 1)),
        at=(30, 31, 32, 33, 34),
        story=tuple(f"{step}: NAN101, skip_step" for step in range(30, 35)),
        skipped=5,
        never_drawn=(30, 31, 32, 33, 34),
    ),
    "three wild targets in a row": Scenario(
        "linear",
        sgd(0.05),
        fault=all_targets(1e4),
        at=(30, 31, 32),
        story=_skips("GRAD201 LOSS401", 30, 33),
        skipped=3,
        never_drawn=(30, 31, 32),
        tried=True,
    ),
    "targets of another size from some step on": Scenario(
        "linear",
        sgd(0.05),
        steps=80,
        fault=all_targets(1e4),
        at=tuple(range(50, 80)),
        settings=SNAPSHOTS_OFTEN,
        story=(*_skips("GRAD201 LOSS401", 50, 56), "55: new level, rate at 1"),
        skipped=6,
        tried=True,
    ),
    "non-finite batches only": Scenario(
        "regression",
        adam(),
        fault=input_value(NAN, (2, 1)),
        at=tuple(range(60)),
        story=(*_skips("NAN101", 0, 19), "19: NAN101, stop", "19: stop"),
        skipped=20,
        attempted=20,
        as_at_first=True,
    ),
    "every mask hides everything from some step on": Scenario(
        "tokens",
        sgd(0.3),
        fault=fully_masked,
        at=tuple(range(30, 60)),
        settings=THREE_ROLLBACKS,
        story=(
            *_skips("NAN101", 30, 32),
            *_rollback("NAN101", 32, to=0, rate=0.5),
            *_skips("NAN101", 33, 35),
            *_rollback("NAN101", 35, to=0, rate=0.125),
            *_skips("NAN101", 36, 38),
            *_rollback("NAN101", 38, to=0, rate=0.0078125),
            *_skips("NAN101", 39, 41),
            "41: NAN101, stop",
            "41: stop, back to 0",
        ),
        skipped=12,
        rollbacks=3,
        lr_scale=0.0078125,
        attempted=42,
        as_at_first=True,
    ),
    "NaN in the loss alone from some step on": Scenario(
        "distributions",
        sgd(0.2),
        fault=impossible_class,
        at=tuple(range(30, 60)),
        story=(
            *_skips("NAN102", 30, 32),
            *_rollback("NAN102", 32, to=0, rate=0.5),
            *_skips("NAN102", 33, 35),
            *_rollback("NAN102", 35, to=0, rate=0.125),
            *_skips("NAN102", 36, 38),
            "38: NAN102, observe",
        ),
        skipped=8,
        rollbacks=2,
    ),
    # -- the state -----------------------------------------------------------------------------------------------
    "a learning rate far too high": Scenario(
        "linear",
        sgd(2.0),
        steps=100,
        story=_rollback("LOSS402", 1, to=0, rate=0.125),
        rollbacks=1,
        lr_scale=0.125,
        never_drawn=tuple(range(2)),
        tried=True,
    ),
    "a learning rate far too high, without a laboratory": Scenario(
        "linear",
        sgd(2.0),
        steps=100,
        diagnose="never",
        story=(*_rollback("LOSS402", 1, to=0, rate=0.5), *_rollback("LOSS402", 5, to=0, rate=0.125)),
        rollbacks=2,
        lr_scale=0.125,
        never_drawn=tuple(range(6)),
    ),
    "a learning rate too high from some step on": Scenario(
        "linear",
        Optimizer("sgd", ((0, 0.05), (40, 1.6))),
        steps=100,
        story=(*_skips("LOSS401", 49, 51), *_rollback("LOSS401", 51, to=0, rate=0.5)),
        skipped=3,
        rollbacks=1,
        lr_scale=0.5,
        never_drawn=tuple(range(52)),
    ),
    "an update that divides by zero": Scenario(
        "regression",
        Optimizer("layerwise", ((0, 0.02),)),
        fault=inputs_times(0.0),
        at=(30,),
        story=_rollback("NAN103", 31, to=0, rate=0.5),
        skipped=1,
        rollbacks=1,
        lr_scale=0.5,
        never_drawn=tuple(range(32)),
    ),
    "an optimizer that divides by zero all the time": Scenario(
        "tokens",
        Optimizer("adam_without_epsilon", ((0, 0.01),)),
        settings=SNAPSHOTS_OFTEN | THREE_ROLLBACKS,
        # The broken rows of the embedding are those of words that the first batch did not hold: no step shows them
        # until such a word occurs or a snapshot is due.
        story=(
            *_rollback("NAN103", 9, to=0, rate=0.5),
            *_rollback("NAN103", 11, to=0, rate=0.125),
            *_rollback("NAN103", 13, to=0, rate=0.0078125),
            "15: NAN103, stop",
            "15: stop, back to 0",
        ),
        skipped=3,
        rollbacks=3,
        lr_scale=0.0078125,
        attempted=16,
        as_at_first=True,
    ),
    # -- other settings ------------------------------------------------------------------------------------------
    "stop at the first non-finite batch": Scenario(
        "regression",
        adam(),
        fault=input_value(NAN, (2, 1)),
        at=(30,),
        settings={"on_non_finite": "stop"},
        story=("30: NAN101, stop", "30: stop"),
        skipped=1,
        attempted=31,
        never_drawn=tuple(range(30, 60)),
    ),
    "raise when giving up": Scenario(
        "regression",
        adam(),
        fault=input_value(NAN, (2, 1)),
        at=(30,),
        settings={"on_non_finite": "stop", "on_give_up": "raise"},
        story=("30: NAN101, stop", "30: stop"),
        skipped=1,
        attempted=31,
        never_drawn=tuple(range(30, 60)),
        raises=True,
    ),
    "observe what is not finite": Scenario(
        "regression",
        adam(),
        fault=input_value(NAN, (2, 1)),
        at=(58,),
        settings={"on_non_finite": "observe"},
        story=("58: NAN101, observe", "59: NAN101, observe", "59: NAN103, skip_step"),
        finite=False,
    ),
    "observe spikes": Scenario(
        "images",
        momentum(0.05),
        fault=inputs_times(1e4),
        at=(30,),
        settings={"on_spike": "observe"},
        story=("30: ACT301, observe",),
    ),
}

REPLAYABLE = [
    name
    for name, each in SCENARIOS.items()
    if not each.raises and "NAN103" not in " ".join(each.story) and not each.tried
]
"""Runs that the numbers of their steps tell all about: none ends with an error, no weights turn non-finite."""
