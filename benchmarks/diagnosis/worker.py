"""Runs the programs of one framework and backend in this process: one JSON line per program on standard output."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
import traceback
from typing import Any

from benchmarks.diagnosis import own_tools
from benchmarks.diagnosis.corpus import load
from benchmarks.diagnosis.program import Happens, Part, Program
from benchmarks.diagnosis.scoring import Score, score


def examine(program: Program, backend: str, with_tools: bool) -> Score:
    """Run a program under guard, then under the framework's own tool."""
    adapter: Any
    if program.framework == "lightning":
        from benchmarks.diagnosis import in_lightning as adapter
    else:
        from benchmarks.diagnosis import in_keras as adapter
    truth = program.truth_on(backend)
    ask = truth.happens in (Happens.STALL, Happens.NOTHING)
    try:
        guarded = adapter.train_guarded(program, ask)
        diagnoses = [incident.diagnosis for incident in guarded.incidents]
        if truth.happens is Happens.STALL and any(each.cause is not None for each in guarded.asked):
            diagnoses = list(guarded.asked)
        elif ask:  # nothing stalls any more if the guard has put it right: then the incident's counts
            diagnoses += guarded.asked
        told = score(program, backend, diagnoses, (incident.code for incident in guarded.incidents))
        told.step_seconds, told.error = guarded.step_seconds, guarded.raised
    except Exception:
        told = score(program, backend, (), ())
        told.error = traceback.format_exc(limit=-4)
    if with_tools and truth.happens is Happens.NON_FINITE:
        told.tool = own_tools.read(program, truth, adapter.own_tool(program))
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("framework", choices=("lightning", "keras"))
    parser.add_argument("--backend", default="")
    parser.add_argument("--part", choices=[part.value for part in Part], default=None)
    parser.add_argument("--only", default="")
    parser.add_argument("--no-tools", action="store_true")
    arguments = parser.parse_args()
    part = Part(arguments.part) if arguments.part else None
    for program in load(arguments.framework, part):
        skipped = arguments.backend and arguments.backend not in program.backends
        if skipped or arguments.only not in program.name:
            continue
        start = time.perf_counter()
        with contextlib.redirect_stdout(sys.stderr):
            told = examine(program, arguments.backend, not arguments.no_tools)
        record = {**told.to_dict(), "wall_seconds": round(time.perf_counter() - start, 2)}
        print(json.dumps(record), flush=True)


if __name__ == "__main__":
    main()
