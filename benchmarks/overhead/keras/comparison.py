"""The interleaved run of all arms, and what is made of its times."""

import gc
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

from benchmarks.overhead.keras.arms import ARMS, CONSTANT_SNAPSHOTS, GUARD, NO_GUARD, Arm
from benchmarks.overhead.keras.open_fit import OpenFit, Turn
from benchmarks.overhead.keras.own_time import time_guard
from benchmarks.overhead.keras.workloads import Workload
from nan_callbacks.core import GuardConfig
from nan_callbacks.core.monitor import PARAM_NORM_EVERY_N_STEPS
from nan_callbacks.keras import NaNGuard

WARM_UP_STEPS = 40
"""First steps, which nobody measures: they trace, compile and allocate, and fill the windows of the guard."""
TURN_STEPS = PARAM_NORM_EVERY_N_STEPS
"""Steps of a turn: each one holds one measurement of the parameter norm."""
SNAPSHOT_TURNS = 3
"""Turns with a snapshot in each step."""
CADENCE = GuardConfig().snapshot_every_n_steps


@dataclass
class Times:
    """The measured turns of one workload.

    Attributes:
        turns: Of each arm, in the order of the rounds.
        with_snapshots: Pairs of a turn of the guard and a turn with a snapshot in each step.
        disturbances: What an arm did that it must not do in a healthy run.
    """

    turns: dict[Arm, list[Turn]] = field(default_factory=lambda: {arm: [] for arm in ARMS})
    with_snapshots: list[tuple[Turn, Turn]] = field(default_factory=list)
    disturbances: list[str] = field(default_factory=list)

    def ratios(self, arm: Arm, clock: str) -> list[float]:
        """Turns in relation to those without a guard in the same round.

        Args:
            arm: The arm.
            clock: ``cpu`` or ``wall``.
        """
        pairs = zip(self.turns[arm], self.turns[NO_GUARD], strict=True)
        return [getattr(turn, clock) / getattr(unguarded, clock) for turn, unguarded in pairs]

    @property
    def unguarded_step(self) -> Turn:
        """Typical seconds of a step without a guard."""
        turns = self.turns[NO_GUARD]
        cpu, wall = (statistics.median(getattr(turn, clock) for turn in turns) for clock in ("cpu", "wall"))
        return Turn(cpu / TURN_STEPS, wall / TURN_STEPS, 0.0)

    @property
    def own(self) -> float:
        """Seconds of a step in the guard's Python code."""
        return statistics.median(turn.own for turn in self.turns[GUARD]) / TURN_STEPS

    @property
    def snapshot(self) -> float:
        """CPU seconds of one snapshot."""
        return statistics.median(after.cpu - before.cpu for before, after in self.with_snapshots) / TURN_STEPS


def median_interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float]:
    """Confidence interval of a median from order statistics: no assumption about the distribution.

    Returns:
        The k-th smallest and the k-th largest value, where k is as large as the confidence permits.
    """
    ordered, count = sorted(values), len(values)
    k, tail = 0, 0.0
    while k < count // 2:
        tail += math.comb(count, k) / 2.0**count
        if 2.0 * tail > 1.0 - confidence:
            break
        k += 1
    k = max(k, 1)
    return ordered[k - 1], ordered[-k]


def compare(workload: Workload, rounds: int) -> Times:
    """Let all arms train in turn; each round in the opposite order of the one before.

    Args:
        workload: What they train.
        rounds: Turns of each arm.
    """
    times = Times()
    fits = {arm: OpenFit(arm, workload, time_guard) for arm in (*ARMS, CONSTANT_SNAPSHOTS)}
    for fit in fits.values():
        fit.turn(WARM_UP_STEPS)
    gc.collect()
    gc.freeze()  # so that a collection, in whose turn it may be, does not walk through all models
    order = list(ARMS)
    for _ in range(rounds):
        for arm in order:
            times.turns[arm].append(fits[arm].turn(TURN_STEPS))
        order.reverse()
    for _ in range(SNAPSHOT_TURNS):
        times.with_snapshots.append((fits[GUARD].turn(TURN_STEPS), fits[CONSTANT_SNAPSHOTS].turn(TURN_STEPS)))
    gc.unfreeze()
    for arm, fit in fits.items():
        if isinstance(fit.callback, NaNGuard) and (fit.callback.is_aside or fit.callback.summary["incidents"]):
            what = "stepped aside" if fit.callback.is_aside else "saw an incident"
            times.disturbances.append(f"{arm.name} {what}")
        fit.close()
    return times
