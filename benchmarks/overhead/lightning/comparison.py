"""The interleaved run of all arms, and what is made of its times."""

import gc
import random
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

from benchmarks.overhead.lightning.arms import ARMS, CONSTANT_SNAPSHOTS, GUARD, NO_GUARD, Arm
from benchmarks.overhead.lightning.open_fit import OpenFit, Step, hold_all_open
from benchmarks.overhead.lightning.workloads import Workload
from nan_callbacks.core import GuardConfig
from nan_callbacks.lightning import NaNGuard

WARM_UP_STEPS = 4
"""First steps, which nobody measures: they allocate the optimizer's state and the memory of the snapshots."""
SNAPSHOT_STEPS = 6
"""Steps with a snapshot in each."""
CHECKPOINTS = 5
"""Checkpoints, of which nothing is written."""
CADENCE = GuardConfig().snapshot_every_n_steps


@dataclass
class Times:
    """The measured steps of one workload.

    Attributes:
        rounds: Of each arm, the steps of each of its turns.
        with_snapshots: Steps of a guard that takes a snapshot in every one.
        checkpoints: Seconds that the guard adds to each checkpoint.
        disturbances: What an arm did that it must not do in a healthy run.
    """

    rounds: dict[Arm, list[list[Step]]] = field(default_factory=lambda: {arm: [] for arm in ARMS})
    with_snapshots: list[Step] = field(default_factory=list)
    checkpoints: list[float] = field(default_factory=list)
    disturbances: list[str] = field(default_factory=list)

    def steps(self, arm: Arm) -> list[Step]:
        """All steps of an arm."""
        return [step for turn in self.rounds[arm] for step in turn]

    @property
    def unguarded_step(self) -> float:
        """Seconds of a step without a guard."""
        return statistics.median(step.whole for step in self.steps(NO_GUARD))

    def extra(self, arm: Arm) -> tuple[float, float, float]:
        """Whole step in relation to no guard, less one, over the rounds: quartile, median, quartile."""
        pairs = zip(self.rounds[arm], self.rounds[NO_GUARD], strict=True)
        ratios = [typical(turn) / typical(unguarded) - 1.0 for turn, unguarded in pairs]
        if len(ratios) < 2:
            return ratios[0], ratios[0], ratios[0]
        low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
        return low, middle, high

    def own_every_step(self, arm: Arm) -> float:
        """Seconds that an arm needs for itself in a step without a snapshot."""
        return statistics.mean(step.own for step in self.steps(arm) if not has_snapshot(arm, step))

    @property
    def own_snapshot(self) -> float:
        """Seconds of one snapshot: what steps that take one need more than the others."""
        return statistics.mean(step.own for step in self.with_snapshots) - self.own_every_step(GUARD)


def typical(turn: Sequence[Step]) -> float:
    """Seconds of a step of this turn; the median, because the first one finds the caches full of another model."""
    return statistics.median(step.whole for step in turn)


def has_snapshot(arm: Arm, step: Step) -> bool:
    """Whether a guard with default settings took a snapshot before this step."""
    return arm is GUARD and step.index % CADENCE == 0


def compare(workload: Workload, steps: int) -> Times:
    """Let all arms train in turn, in another order every time.

    Args:
        workload: What they train.
        steps: Measured steps of each arm, rounded up to whole turns.
    """
    times = Times()
    fits = {arm: OpenFit(arm, workload) for arm in (*ARMS, CONSTANT_SNAPSHOTS)}
    shuffler = random.Random(0)

    def measure() -> None:
        for fit in fits.values():
            fit.steps(WARM_UP_STEPS)
        gc.collect()
        gc.freeze()  # so that a collection, in whose step it may be, does not walk through all trainers
        order = list(ARMS)
        for _ in range(-(-steps // workload.block)):
            shuffler.shuffle(order)
            for arm in order:
                times.rounds[arm].append(fits[arm].steps(workload.block))
        times.with_snapshots = fits[CONSTANT_SNAPSHOTS].steps(SNAPSHOT_STEPS)
        times.checkpoints = [fits[GUARD].own_checkpoint_seconds() for _ in range(CHECKPOINTS)]
        gc.unfreeze()

    hold_all_open(list(fits.values()), measure)
    for arm, fit in fits.items():
        if isinstance(fit.callback, NaNGuard) and (fit.callback.is_aside or fit.callback.summary["incidents"]):
            what = "stepped aside" if fit.callback.is_aside else "saw an incident"
            times.disturbances.append(f"{arm.name} {what}")
    return times
