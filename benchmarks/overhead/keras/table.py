"""The tables of the Keras guard.

Each turn is compared with the unguarded arm's in the same round: median of the ratios, less one, and its 95 %
confidence interval. CPU time is that of the whole process and hardly depends on what else the machine does; wall time
does. `own Python` is the CPU time of the training thread in the guard's Python code around the compiled step (on torch,
within the step as well). A turn holds one measurement of the parameter norm; the price of a snapshot, which the median
passes over, is spread over the steps between two in a column of its own.
"""

import os
import statistics
import sys
import time
import warnings

import keras

from benchmarks.overhead.keras.arms import ARMS, GUARD, NO_GUARD, Arm
from benchmarks.overhead.keras.comparison import CADENCE, TURN_STEPS, Times, compare, median_interval
from benchmarks.overhead.keras.machine import use_one_thread
from benchmarks.overhead.keras.workloads import WORKLOADS, Workload

HEADINGS = f"{'':<18}{'CPU time':>28}{'wall time':>28}{'own Python':>20}{'snapshots':>12}"


def row(times: Times, arm: Arm) -> str:
    """One line of the table."""
    if arm is NO_GUARD:
        return f"{arm.name:<18}{'=':>28}{'=':>28}"
    line = f"{arm.name:<18}{ratio(times.ratios(arm, 'cpu')):>28}{ratio(times.ratios(arm, 'wall')):>28}"
    if arm is not GUARD:
        return line
    step = times.unguarded_step.cpu
    return f"{line}{f'{times.own * 1e6:.0f} us  {times.own / step:.2%}':>20}{times.snapshot / CADENCE / step:>12.2%}"


def ratio(ratios: list[float]) -> str:
    """Median and 95 % confidence interval of a ratio, less one."""
    low, high = median_interval(ratios)
    return f"{statistics.median(ratios) - 1:+.2%} [{low - 1:+.2%}, {high - 1:+.2%}]"


def report(workload: Workload, times: Times, seconds: float) -> bool:
    """Print the table of one workload; return whether the guard met its target."""
    model, step = workload.build(), times.unguarded_step
    tensors = len(model.trainable_variables)
    print(f"\n{workload.name}: {model.count_params() / 1e6:.2f}M parameters in {tensors} variables, ", end="")
    print(f"{step.cpu * 1e3:.2f} ms CPU ({step.wall * 1e3:.2f} ms wall) a step unguarded, ", end="")
    print(f"{len(times.turns[GUARD])} turns of {TURN_STEPS} steps an arm, {seconds:.0f} s\n{HEADINGS}")
    for arm in ARMS:
        print(row(times, arm))
    print(f"one snapshot: {times.snapshot * 1e3:.2f} ms = {times.snapshot / step.cpu:.1%} of a step")
    for disturbance in times.disturbances:
        print(f"DISTURBED: {disturbance}")
    extra = statistics.median(times.ratios(GUARD, "cpu")) - 1.0 + times.snapshot / CADENCE / step.cpu
    met = (workload.target is None or extra <= workload.target) and not times.disturbances
    if workload.target is not None:
        verdict = "met" if met else "MISSED"
        print(f"the guard with its snapshots: {extra:+.2%} of the step, target {workload.target:.1%}: {verdict}")
    sys.stdout.flush()
    return met


def measure(names: list[str], rounds: int | None, backend: str) -> bool:
    """Compare the arms on each model, print the tables; return whether all targets were met."""
    version = use_one_thread(backend)
    warnings.filterwarnings("ignore")
    print(f"keras {keras.__version__}, {version}, one thread on a machine of {os.cpu_count()} CPUs")
    met = []
    for workload in WORKLOADS:
        if workload.name in names:
            began = time.perf_counter()
            times = compare(workload, rounds or workload.rounds)
            met.append(report(workload, times, time.perf_counter() - began))
    return all(met)
