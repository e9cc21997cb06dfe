"""Count false alarms: train every healthy run under a `NaNGuard()` with default settings.

Usage: python -m benchmarks.false_alarms [--framework lightning|keras] [--backend NAME] [--seeds N] [--only NAME ...]

Nothing is wrong in these runs, so every incident is a false alarm, every warning of the checkup before the first step
and of the samples of the layers as well, and every skip or rollback is harm. The
exit code is 1 when the guard skipped a step, rolled back or stopped a run, or when a run failed.
"""

import argparse
import importlib
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from scipy.stats import chi2

PER_STEPS = 100_000
COUNTERS = ("steps", "incidents", "skipped_steps", "rollbacks", "lr_cuts", "checkup", "health")
HEADINGS = ("steps", "incidents", "skips", "rollbacks", "lr cuts", "checkup", "health")
REMARKS = ("checkup", "health")
"""Events beside incidents that are false alarms here, unless they are mere information."""


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


Train = Callable[[Any, int, Any], Iterable[None]]
"""Trains a run from a seed under a guard; yields after each fit, whose summary is then there to be read."""


def train_lightning(run: Any, seed: int, guard: Any) -> Iterable[None]:
    """One call of `Trainer.fit`."""
    run.train(seed, [guard])
    yield


def train_keras(run: Any, seed: int, guard: Any) -> Iterable[None]:
    """One call of `model.fit` or several."""
    for fit in run.fits(seed):
        fit.run([guard])
        yield


def framework(name: str, backend: str | None) -> tuple[Mapping[str, Any], Any, Train]:
    """The healthy runs of a framework, its guard, and how its runs are trained; imported only when asked for."""
    if name == "keras":
        os.environ["KERAS_BACKEND"] = backend or os.environ.get("KERAS_BACKEND", "tensorflow")
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        runs = importlib.import_module("benchmarks.healthy_keras").HEALTHY_RUNS
        return runs, importlib.import_module("nan_callbacks.keras").NaNGuard, train_keras
    importlib.import_module("torch").set_num_threads(1)
    healthy = importlib.import_module("benchmarks.healthy")
    healthy.silence_lightning()
    return healthy.HEALTHY_RUNS, importlib.import_module("nan_callbacks.lightning").NaNGuard, train_lightning


def measure(run: Any, seed: int, guard: Any, train: Train) -> Outcome:
    """Train one run under a guard with default settings (only its messages are turned off)."""
    counts: Counter[str] = Counter()
    remarks: list[str] = []
    failures: list[str] = []

    def look() -> None:
        summary = guard.summary
        counts.update({name: int(summary.get(name, 0)) for name in COUNTERS})
        counts.update(event["event"] for event in guard.events if event["event"] in REMARKS and _is_grave(event))
        remarks.extend(described(guard.events))
        if summary.get("stopped"):
            failures.append(f"STOPPED: {summary.get('stop_reason')}")
        if guard.is_aside:
            failures.append("FAILED: the guard stepped aside")

    try:
        for _ in train(run, seed, guard):
            look()
    except Exception as error:  # one broken run must not hide the others
        look()
        failures.append(f"FAILED: {type(error).__name__}: {error}")
    harmful = bool(counts["skipped_steps"] or counts["rollbacks"] or failures)
    return Outcome(counts, "; ".join([*remarks, *failures]), harmful)


def described(events: Iterable[dict[str, Any]]) -> list[str]:
    """The incidents of a run, grouped by code: how many there were, and the step of the first."""
    steps: dict[str, list[Any]] = {}
    for event in events:
        if event.get("event") == "incident" or (event.get("event") in REMARKS and _is_grave(event)):
            steps.setdefault(str(event.get("code")), []).append(event.get("step"))
    return [f"{code} x{len(at)} from step {at[0]}" for code, at in steps.items()]


def _is_grave(event: dict[str, Any]) -> bool:
    return bool(event.get("severity") != "info")


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
    parser.add_argument("--framework", choices=["lightning", "keras"], default="lightning")
    parser.add_argument("--backend", choices=["tensorflow", "jax", "torch"], help="of Keras")
    parser.add_argument("--seeds", type=int, default=2, help="seeds 0 to N-1 of every run (default: %(default)s)")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these runs only")
    options = parser.parse_args()
    if options.backend and options.framework != "keras":
        parser.error("--backend belongs to --framework keras")
    return options


def chosen(runs: Mapping[str, Any], names: list[str] | None) -> list[Any]:
    """The runs of these names; all of them if none are given."""
    unknown = sorted(set(names or ()) - set(runs))
    if unknown:
        sys.exit(f"unknown runs: {', '.join(unknown)}; there are: {', '.join(sorted(runs))}")
    return [runs[name] for name in names or runs]


def main() -> int:
    """Print one row as soon as its run is over, then the totals; return the exit code."""
    options = parsed_options()
    runs, make_guard, train = framework(options.framework, options.backend)
    jobs = [(run, seed) for run in chosen(runs, options.only) for seed in range(options.seeds)]
    width = max(len(run.name) for run, _ in jobs) + 2
    print(f"{'':>9} {'run':<{width}} " + " ".join(f"{heading:>9}" for heading in HEADINGS) + "   seconds")
    totals: Counter[str] = Counter()
    harmed = 0
    for number, (run, seed) in enumerate(jobs, start=1):
        began = time.perf_counter()
        outcome = measure(run, seed, make_guard(verbose=False), train)
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
