"""Measure recovery: train every faulty run unguarded, under a default `NaNGuard()`, and without its fault.

Usage: python -m benchmarks.recovery [--seeds N] [--only PART ...]

A run counts as recovered if the guarded metric is within 5 points of accuracy, or 1.2 times the loss, of the
undisturbed run. Where no guard can save the run (expected action: stop), it passes if the guard stops it with
finite weights. Where the fault is harmless (expected action: none), only harm counts: a stop, or a guarded
metric outside the same tolerance of the unguarded one. The exit code is 1 unless all runs pass.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule

from benchmarks.faults import FAULTY_RUNS, FaultyRun, train
from nan_callbacks.lightning import NaNGuard

ACCURACY_POINTS = 0.05
LOSS_RATIO = 1.2
COUNTERS = ("skipped_steps", "rollbacks", "lr_cuts")
HEADINGS = ("unguarded", "guarded", "undisturbed", "skips", "rollbacks", "lr cuts")
NAN = float("nan")


@dataclass(frozen=True)
class Arm:
    """How one arm of a run ended: its held-out metric, whether its weights are finite, an escaped error."""

    metric: float
    finite_weights: bool
    failure: str | None = None


@dataclass(frozen=True)
class Outcome:
    """The three arms of one run, and what the guard did in its arm."""

    run: FaultyRun
    unguarded: Arm
    guarded: Arm
    undisturbed: Arm
    summary: dict[str, Any] = field(default_factory=dict)

    @property
    def stopped(self) -> bool:
        return bool(self.summary.get("stopped"))

    @property
    def verdict(self) -> str:
        """Recovered, stopped, unharmed; in capitals when the run does not pass."""
        if self.guarded.failure:
            return "FAILED"
        if self.run.expected == "none":
            kept = as_good(self.run, self.guarded.metric, self.unguarded.metric)
            return "unharmed" if kept and not self.stopped else "HARMED"
        if self.run.expected == "stop":
            if not self.stopped:
                return "NOT STOPPED"
            return "stopped" if self.guarded.finite_weights else "STOPPED WITH NON-FINITE WEIGHTS"
        recovered = as_good(self.run, self.guarded.metric, self.undisturbed.metric)
        return "recovered" if recovered else "NOT RECOVERED"


def as_good(run: FaultyRun, metric: float, reference: float) -> bool:
    """Whether a metric is within the stated tolerance of another; NaN is as good as nothing but NaN."""
    if not math.isfinite(metric):
        return not math.isfinite(reference)
    if not math.isfinite(reference):
        return True
    if run.higher_is_better:
        return metric >= reference - ACCURACY_POINTS
    return metric <= reference * LOSS_RATIO


def train_arm(run: FaultyRun, seed: int, with_fault: bool, callbacks: Sequence[Callback] = ()) -> Arm:
    try:
        module = train(run, seed, with_fault, callbacks)
        return Arm(run.evaluate(module), finite_weights(module))
    except Exception as error:  # one broken run must not hide the others
        return Arm(NAN, False, f"{type(error).__name__}: {error}")


def finite_weights(module: LightningModule) -> bool:
    """Whether all parameters and BatchNorm statistics are finite; an attention mask's -inf is legal."""
    return not any(bool(t.isnan().any() or (t == torch.inf).any()) for t in module.state_dict().values())


def measure(run: FaultyRun, seed: int) -> Outcome:
    """Train the three arms of a run; the guard keeps its defaults but for its messages."""
    guard = NaNGuard(verbose=False)
    guarded = train_arm(run, seed, True, [guard])
    unguarded, undisturbed = train_arm(run, seed, True), train_arm(run, seed, False)
    return Outcome(run, unguarded, guarded, undisturbed, dict(guard.summary))


def row(label: str, outcome: Outcome) -> str:
    """One line of the table."""
    metrics = (arm.metric for arm in (outcome.unguarded, outcome.guarded, outcome.undisturbed))
    numbers = [f"{metric:>11.4g}" for metric in metrics]
    counts = [f"{outcome.summary.get(name, 0):>11}" for name in COUNTERS]
    remarks = [outcome.verdict, f"expected {outcome.run.expected}"]
    scale = outcome.summary.get("lr_scale", 1.0)
    if scale != 1.0:
        remarks.append(f"lr x{scale:.3g}")
    if outcome.stopped:
        remarks.append(f"stopped: {outcome.summary.get('stop_reason')}")
    if outcome.guarded.failure:
        remarks.append(outcome.guarded.failure)
    return " ".join([label, *numbers, *counts]) + "   " + "; ".join(remarks)


def print_totals(outcomes: list[Outcome]) -> int:
    """Print the number of runs by expected action and verdict; return how many did not pass."""
    failed = 0
    for expected in ("none", "skip", "rollback", "stop"):
        verdicts = [outcome.verdict for outcome in outcomes if outcome.run.expected == expected]
        counted = ", ".join(f"{verdicts.count(v)} {v}" for v in sorted(set(verdicts), key=str.lower))
        if verdicts:
            print(f"expected {expected}: {len(verdicts)} runs: {counted}")
        failed += sum(verdict.isupper() for verdict in verdicts)
    unaided = sum(as_good(o.run, o.unguarded.metric, o.undisturbed.metric) for o in outcomes)
    aided = sum(as_good(o.run, o.guarded.metric, o.undisturbed.metric) for o in outcomes)
    print(f"as good as undisturbed: {unaided} unguarded, {aided} guarded, of {len(outcomes)} runs")
    return failed


def parsed_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=1, help="seeds 0 to N-1 of every run (default: 1)")
    parser.add_argument("--only", nargs="+", default=[""], metavar="PART", help="runs whose name contains a part")
    return parser.parse_args()


def main() -> int:
    """Print one row as soon as its run is over, then the totals; return the exit code."""
    options = parsed_options()
    torch.set_num_threads(1)
    chosen = [run for run in FAULTY_RUNS.values() if any(part in run.name for part in options.only)]
    jobs = [(run, seed) for run in chosen for seed in range(options.seeds)]
    width = max((len(run.name) for run in chosen), default=0) + 2
    print(f"{'':>7} {'run':<{width}} " + " ".join(f"{heading:>11}" for heading in HEADINGS))
    outcomes: list[Outcome] = []
    began = time.perf_counter()
    for number, (run, seed) in enumerate(jobs, start=1):
        outcome = measure(run, seed)
        outcomes.append(outcome)
        place, label = f"{number}/{len(jobs)}", f"{run.name}-{seed}"
        print(row(f"{place:>7} {label:<{width}}", outcome), flush=True)
    failed = print_totals(outcomes)
    print(f"{len(outcomes) - failed} of {len(outcomes)} pass, {time.perf_counter() - began:.0f} s")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
