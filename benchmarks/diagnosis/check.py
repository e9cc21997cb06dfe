"""Does every program do what its truth says, without a guard? ``python -m benchmarks.diagnosis.check lightning``."""

from __future__ import annotations

import argparse
import time

from benchmarks.diagnosis.corpus import load
from benchmarks.diagnosis.unguarded import disagreement, train_unguarded


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("framework", choices=("lightning", "keras"))
    parser.add_argument("--only", default="", help="part of a name")
    parser.add_argument("--backend", default="", help="the Keras backend of this process (set KERAS_BACKEND as well)")
    arguments = parser.parse_args()
    for program in load(arguments.framework):
        if arguments.only not in program.name or (arguments.backend and arguments.backend not in program.backends):
            continue
        truth, start = program.truth_on(arguments.backend), time.perf_counter()
        seen = train_unguarded(program)
        wrong = disagreement(seen, truth.happens)
        program.guilty_lines(truth)
        spike, bad = seen.first_spike(), seen.first_bad_step()
        print(
            f"{'ok   ' if not wrong else 'WRONG'} {program.part.value:9} {program.name:36} {truth.happens.value:11} "
            f"{','.join(truth.causes):16} {time.perf_counter() - start:5.1f} s {len(seen.losses):4} steps, "
            f"bad {bad}, spike {spike}, {seen.raised[:40]} {wrong}",
            flush=True,
        )


if __name__ == "__main__":
    main()
