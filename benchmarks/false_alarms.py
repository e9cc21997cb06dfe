"""Count false alarms: train every healthy run under a `NaNGuard()` with default settings.

Usage: python -m benchmarks.false_alarms [--seeds N] [--only NAME ...]

Nothing is wrong in these runs, so every incident is a false alarm and every skip or rollback is harm. The
exit code is 1 when the guard skipped a step, rolled back or stopped a run, or when a run failed.
"""

import argparse
import sys
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from scipy.stats import chi2

from benchmarks.healthy import HEALTHY_RUNS, HealthyRun, silence_lightning
from nan_callbacks.lightning import NaNGuard

PER_STEPS = 100_000
COUNTERS = ("steps", "incidents", "skipped_steps", "rollbacks", "lr_cuts")
HEADINGS = ("steps", "incidents", "skips", "rollbacks", "lr cuts")


@dataclass(frozen=True)
class Outcome:
    """What the guard did in one healthy run.

    Attributes:
        counts: The values of `COUNTERS` in the guard's summary.
        remark: The codes of its incidents and their first step, a stop, or the error that ended the run.
        harmful: Whether a step was skipped or rolled back, or the run did not come to its own end.
    """

    counts: Counter[str]
    remark: str
    harmful: bool


def measure(run: HealthyRun, seed: int) -> Outcome:
    """Train one run under a guard with default settings (only its messages are turned off)."""
    guard = NaNGuard(verbose=False)
    failure = None
    try:
        run.train(seed, [guard])
    except Exception as error:  # one broken run must not hide the others
        failure = f"FAILED: {type(error).__name__}: {error}"
    summary = dict(guard.summary)
    counts = Counter({name: int(summary.get(name, 0)) for name in COUNTERS})
    stopped = f"STOPPED: {summary.get('stop_reason')}" if summary.get("stopped") else None
    remarks = [*described(guard.events), *filter(None, (stopped, failure))]
    harmful = bool(counts["skipped_steps"] or counts["rollbacks"] or stopped or failure)
    return Outcome(counts, "; ".join(remarks), harmful)


def described(events: Iterable[dict[str, Any]]) -> list[str]:
    """The incidents of a run, grouped by code: how many there were, and the step of the first."""
    steps: dict[str, list[Any]] = {}
    for event in events:
        if event.get("event") == "incident":
            steps.setdefault(str(event.get("code")), []).append(event.get("step"))
    return [f"{code} x{len(at)} from step {at[0]}" for code, at in steps.items()]


def upper_bound(alarms: int) -> float:
    """One-sided 95 % upper bound of a Poisson mean after `alarms` events; after none, the rule of three.

    References:
        Garwood, Fiducial limits for the Poisson distribution, Biometrika 28, 1936.
    """
    return float(chi2.ppf(0.95, 2 * (alarms + 1)) / 2)


def rate_line(what: str, alarms: int, steps: int) -> str:
    """A count as a rate with its bound, which takes the alarms of one run as independent, though they are not."""
    scale = PER_STEPS / max(1, steps)
    rate, bound = alarms * scale, upper_bound(alarms) * scale
    return f"{what}: {alarms} in {steps} steps = {rate:.1f} per {PER_STEPS} steps (95 % upper bound {bound:.1f})"


def parsed_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=2, help="seeds 0 to N-1 of every run (default: %(default)s)")
    parser.add_argument("--only", nargs="+", choices=sorted(HEALTHY_RUNS), metavar="NAME", help="these runs only")
    return parser.parse_args()


def main() -> int:
    """Print one row as soon as its run is over, then the totals; return the exit code."""
    options = parsed_options()
    torch.set_num_threads(1)
    silence_lightning()
    jobs = [(HEALTHY_RUNS[name], seed) for name in options.only or HEALTHY_RUNS for seed in range(options.seeds)]
    width = max(len(run.name) for run, _ in jobs) + 2
    print(f"{'':>9} {'run':<{width}} " + " ".join(f"{heading:>9}" for heading in HEADINGS) + "   seconds")
    totals: Counter[str] = Counter()
    harmed = 0
    for number, (run, seed) in enumerate(jobs, start=1):
        began = time.perf_counter()
        outcome = measure(run, seed)
        seconds = time.perf_counter() - began
        totals.update(outcome.counts)
        harmed += outcome.harmful
        cells = " ".join(f"{outcome.counts[name]:>9}" for name in COUNTERS)
        place, label = f"{number}/{len(jobs)}", f"{run.name}-{seed}"
        print(f"{place:>9} {label:<{width}} {cells} {seconds:>9.1f}   {outcome.remark}".rstrip(), flush=True)
    print(f"{'':>9} {'total':<{width}} " + " ".join(f"{totals[name]:>9}" for name in COUNTERS))
    print(rate_line("incidents", totals["incidents"], totals["steps"]))
    print(rate_line("skips and rollbacks", totals["skipped_steps"] + totals["rollbacks"], totals["steps"]))
    print(f"harmed runs: {harmed} of {len(jobs)}")
    return 1 if harmed else 0


if __name__ == "__main__":
    sys.exit(main())
