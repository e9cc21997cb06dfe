"""The tables of the Lightning guard.

`whole step` compares whole steps with those of the unguarded arm in the same round: median [quartiles]. `own` is the
time inside the arm's own hooks and the places that it has taken over, as a share of an unguarded step: far less noisy,
but blind to what happens elsewhere. The price of a snapshot is spread over the steps between two.
"""

import os
import statistics
import time
import warnings

import pytorch_lightning
import torch

from benchmarks.healthy import silence_lightning
from benchmarks.overhead.lightning.arms import ARMS, GUARD, Arm
from benchmarks.overhead.lightning.comparison import CADENCE, Times, compare
from benchmarks.overhead.lightning.workloads import WORKLOADS, Workload

HEADINGS = f"{'':<22}{'whole step':>28}{'own, every step':>24}{'snapshots':>12}{'own, all':>12}"


def row(times: Times, arm: Arm) -> str:
    """One line of the table."""
    low, middle, high = times.extra(arm)
    whole = f"{middle:+.2%} [{low:+.2%}, {high:+.2%}]"
    if not arm.has_own_time:
        return f"{arm.name:<22}{whole:>28}"
    seconds, step = times.own_every_step(arm), times.unguarded_step
    own = f"{seconds * 1e6:.0f} us  {seconds / step:.2%}"
    snapshots = f"{snapshot_share(times):.2%}" if arm is GUARD else ""
    return f"{arm.name:<22}{whole:>28}{own:>24}{snapshots:>12}{own_share(times, arm):>12.2%}"


def snapshot_share(times: Times) -> float:
    """Price of a snapshot, spread over the steps between two, in unguarded steps."""
    return times.own_snapshot / CADENCE / times.unguarded_step


def own_share(times: Times, arm: Arm) -> float:
    """An arm's own time of a step, in unguarded steps."""
    every_step = times.own_every_step(arm) / times.unguarded_step
    return every_step + snapshot_share(times) if arm is GUARD else every_step


def report(workload: Workload, times: Times, seconds: float) -> bool:
    """Print the table of one workload; return whether the guard met its target."""
    parameters = sum(parameter.numel() for parameter in workload.build().parameters())
    steps, step = len(times.steps(GUARD)), times.unguarded_step
    print(f"\n{workload.name}: {parameters / 1e6:.1f}M parameters, {step * 1e3:.1f} ms CPU a step unguarded, ", end="")
    print(f"{steps} steps an arm in turns of {workload.block}, {seconds:.0f} s\n{HEADINGS}")
    for arm in ARMS:
        print(row(times, arm))
    share = own_share(times, GUARD)
    met = share <= workload.target and not times.disturbances
    print(f"one snapshot: {times.own_snapshot * 1e3:.2f} ms = {times.own_snapshot / step:.1%} of a step; ", end="")
    print(f"one checkpoint: {statistics.mean(times.checkpoints) * 1e3:.2f} ms more")
    for disturbance in times.disturbances:
        print(f"DISTURBED: {disturbance}")
    print(f"the guard's own time: {share:.2%} of the step, target {workload.target:.1%}: {'met' if met else 'MISSED'}")
    return met


def measure(names: list[str], steps: int | None) -> bool:
    """Compare the arms on each model, print the tables; return whether all targets were met."""
    torch.set_num_threads(1)
    silence_lightning()
    warnings.filterwarnings("ignore")  # Lightning's advice on data loaders, and on anomaly mode
    print(f"torch {torch.__version__}, pytorch-lightning {pytorch_lightning.__version__}, ", end="")
    print(f"{torch.get_num_threads()} thread on a machine of {os.cpu_count()} CPUs")
    met = []
    for workload in WORKLOADS:
        if workload.name in names:
            began = time.perf_counter()
            times = compare(workload, steps or workload.steps)
            met.append(report(workload, times, time.perf_counter() - began))
    return all(met)
