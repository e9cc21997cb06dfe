"""What does the checkup find, and what does it say of healthy set-ups?

Usage: python -m benchmarks.checkup [--framework lightning|tensorflow|jax|torch] [--only TEXT] [--verbose]

``tensorflow``, ``jax`` and ``torch`` are Keras on that backend. Every faulty set-up must be given its code, as a
warning or worse (hazards, which are one unlucky batch away, may be information); a healthy one must be given none.
The exit code is 1 if fewer than 95 % are found, or more than 1 % of the healthy ones are accused.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import subprocess
import sys
import time
from collections import defaultdict
from typing import Any

from benchmarks.checkup.set_up import FRAMEWORKS, REGISTRY, SetUp

FILES = (
    "of_inputs", "of_labels", "of_models", "held_out_inputs", "held_out_labels", "held_out_losses", "held_out_models",
)  # fmt: skip
LEAST_RECALL, MOST_FALSE = 0.95, 0.01
Record = dict[str, Any]


def examine(spec: SetUp, look: Any) -> Record:
    """One set-up."""
    began, error = time.perf_counter(), ""
    notices: list[tuple[str, str, str]] = []
    notes: tuple[str, ...] = ()
    try:
        report = look(spec)
        notices = [(notice.code, notice.kind, notice.severity.name) for notice in report]
        notes = report.notes
    except Exception as failure:
        error = f"{type(failure).__name__}: {failure}"
    grave = [code for code, _, severity in notices if severity != "INFO"]
    found = any(code in spec.expected for code, _, _ in notices)
    return {
        "name": spec.name, "expected": spec.expected, "looks_like": spec.looks_like, "notices": notices,
        "found": found, "grave": grave, "error": error, "notes": notes, "seconds": time.perf_counter() - began,
    }  # fmt: skip


def run_framework(framework: str, only: str) -> None:
    """All set-ups of a framework in this process, one JSON line each."""
    module = "in_lightning" if framework == "lightning" else "in_keras"
    for name in FILES:
        importlib.import_module(f"benchmarks.checkup.{name}")
    with contextlib.redirect_stdout(sys.stderr):
        look = importlib.import_module(f"benchmarks.checkup.{module}").look
    for spec in REGISTRY.all(framework):
        if only in spec.name:
            with contextlib.redirect_stdout(sys.stderr):
                record = examine(spec, look)
            print(json.dumps({**record, "framework": framework}), flush=True)


def collect(framework: str, only: str) -> list[Record]:
    """The same in a process of its own."""
    environment = {"OMP_NUM_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "3", **os.environ}
    environment |= {"KERAS_BACKEND": framework} if framework != "lightning" else {}
    command = [sys.executable, "-m", "benchmarks.checkup", "--worker", framework, "--only", only]
    finished = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if finished.returncode != 0:
        print(f"{framework}: the worker failed:\n{finished.stderr[-3000:]}", file=sys.stderr)
    return [json.loads(line) for line in finished.stdout.splitlines() if line.startswith("{")]


def print_table(records: list[Record]) -> bool:
    """Recall per code and framework, and what healthy set-ups were accused of; whether the targets are met."""
    frameworks = [name for name in FRAMEWORKS if any(record["framework"] == name for record in records)]
    found: dict[str, dict[str, list[bool]]] = defaultdict(lambda: defaultdict(list))
    false: dict[str, dict[str, list[bool]]] = defaultdict(lambda: defaultdict(list))
    for record in records:
        if record["expected"]:
            found["/".join(record["expected"])][record["framework"]].append(record["found"])
        else:
            false[f"healthy beside {record['looks_like']}"][record["framework"]].append(bool(record["grave"]))
    print(f"{'':34}" + "".join(f"{name:>14}" for name in frameworks))
    for title, rows in (("found", found), ("falsely accused", false)):
        print(title)
        for code, by_framework in rows.items():
            cells = [f"{sum(by_framework[name])}/{len(by_framework[name])}" for name in frameworks]
            print(f"  {code:32}" + "".join(f"{cell:>14}" for cell in cells))
    faulty = [record["found"] for record in records if record["expected"]]
    healthy = [bool(record["grave"]) for record in records if not record["expected"]]
    recall, accused = sum(faulty) / max(1, len(faulty)), sum(healthy) / max(1, len(healthy))
    print(f"recall {sum(faulty)}/{len(faulty)} ({100 * recall:.1f} %), target 95 %")
    print(f"healthy set-ups accused {sum(healthy)}/{len(healthy)} ({100 * accused:.1f} %), target 1 %")
    return recall >= LEAST_RECALL and accused <= MOST_FALSE


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--framework", choices=FRAMEWORKS, help="default: all, one after the other")
    parser.add_argument("--only", default="", help="set-ups whose name holds this")
    parser.add_argument("--verbose", action="store_true", help="tell of every set-up")
    parser.add_argument("--worker", choices=FRAMEWORKS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        run_framework(options.worker, options.only)
        return 0
    records: list[Record] = []
    for framework in FRAMEWORKS:
        if options.framework in (None, framework):
            records += collect(framework, options.only)
    for record in records:
        wrong = (record["expected"] and not record["found"]) or (not record["expected"] and record["grave"])
        if wrong or record["error"] or options.verbose:
            said = ", ".join(f"{code}/{kind} {severity.lower()}" for code, kind, severity in record["notices"])
            wanted = "/".join(record["expected"]) or "nothing"
            told = f"expected {wanted}, said {said or 'nothing'} {record['error']}"
            print(f"{record['framework']:10} {record['name']}: {told}")
    return 0 if print_table(records) else 1


if __name__ == "__main__":
    sys.exit(main())
