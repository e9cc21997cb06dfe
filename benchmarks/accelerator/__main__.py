"""Do the promises hold on an accelerator? Continuous integration has none; run this on a machine that does.

Usage: python -m benchmarks.accelerator [--part lightning|compiled|cost|jax|torch] [--device gpu|cpu]

Each part runs in a process of its own and prints one line per check; `--device cpu` tries the checks themselves. The
exit code is 1 if a check fails. Lightning: bitwise the run without the guard; bitwise the run whose data never held the
bad batch, in every precision; rollback; diagnosis; device-to-host reads and time per step. Keras on JAX and torch: the
same in short.
"""

from __future__ import annotations

import argparse
import importlib
import os
import subprocess
import sys

PARTS = ("lightning", "compiled", "cost", "jax", "torch")
DETERMINISTIC = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8", "XLA_FLAGS": "--xla_gpu_deterministic_ops=true"}
"""Without these an accelerator differs from itself from run to run."""


def run_part(part: str, device: str) -> int:
    """All checks of one part in this process; 1 if one of them fails."""
    module = "keras_checks" if part in ("jax", "torch") else part
    checks = importlib.import_module(f"benchmarks.accelerator.{module}").checks(device)
    failed = 0
    for name, passed, told in checks:
        failed += not passed
        print(f"{'ok    ' if passed else 'FAILED'} {part:10} {name:44} {told}", flush=True)
    return 1 if failed else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=PARTS, help="default: all, one after the other")
    parser.add_argument("--device", choices=("gpu", "cpu"), default="gpu")
    options = parser.parse_args()
    if options.part is not None:
        return run_part(options.part, options.device)
    codes = []
    for part in PARTS:
        environment = {**DETERMINISTIC, **os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
        if part in ("jax", "torch"):
            environment["KERAS_BACKEND"] = part
        command = [sys.executable, "-m", "benchmarks.accelerator", "--part", part, "--device", options.device]
        codes.append(subprocess.run(command, env=environment, check=False).returncode)
    return 1 if any(codes) else 0


if __name__ == "__main__":
    sys.exit(main())
