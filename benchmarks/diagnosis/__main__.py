"""How well incidents are explained: corpus, scores, and what the frameworks' own tools say of the same programs.

Usage: python -m benchmarks.diagnosis [--framework lightning|keras] [--backend tensorflow|jax|torch]
           [--part tuning|held_out|fresh|unseen|latest|posted|recent] [--only NAME] [--json FILE] [--verbose]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.diagnosis.program import BACKENDS, Part
from benchmarks.diagnosis.table import print_mistakes, print_table

Record = dict[str, Any]


def run_worker(framework: str, backend: str, arguments: argparse.Namespace) -> list[Record]:
    """All programs of one framework and backend, in a process of their own."""
    command = [sys.executable, "-m", "benchmarks.diagnosis.worker", framework, "--only", arguments.only]
    command += ["--backend", backend] if backend else []
    command += ["--part", arguments.part] if arguments.part else []
    command += ["--no-tools"] if arguments.no_tools else []
    environment = {"OMP_NUM_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "3", **os.environ}
    if backend:
        environment["KERAS_BACKEND"] = backend
    finished = subprocess.run(command, env=environment, capture_output=True, text=True)
    if finished.returncode != 0:
        print(f"{framework} {backend}: the worker failed:\n{finished.stderr[-3000:]}", file=sys.stderr)
    return [json.loads(line) for line in finished.stdout.splitlines() if line.startswith("{")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--framework", choices=("lightning", "keras"))
    parser.add_argument("--backend", choices=BACKENDS, help="of Keras; all three by default")
    parser.add_argument("--part", choices=[part.value for part in Part], help="both by default")
    parser.add_argument("--only", default="", help="programs whose name holds this")
    parser.add_argument("--json", type=Path, help="file for all records")
    parser.add_argument("--no-tools", action="store_true", help="leave out the frameworks' own tools")
    parser.add_argument("--verbose", action="store_true", help="tell of every program what was expected and found")
    arguments = parser.parse_args()
    targets = [("lightning", "")] if arguments.framework != "keras" and not arguments.backend else []
    if arguments.framework != "lightning":
        targets += [("keras", backend) for backend in BACKENDS if arguments.backend in (None, backend)]
    records: list[Record] = []
    for framework, backend in targets:
        print(f"running {framework} {backend} …", file=sys.stderr, flush=True)
        records += run_worker(framework, backend, arguments)
    if arguments.json:
        arguments.json.write_text(json.dumps(records, indent=1))
    print_mistakes(records, everything=arguments.verbose)
    print_table(records)


if __name__ == "__main__":
    main()
