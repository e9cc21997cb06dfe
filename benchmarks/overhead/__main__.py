"""Measure the overhead: the guard with default settings, next to no guard and to what people use instead.

Usage: python -m benchmarks.overhead [--framework lightning] [--models NAME,NAME] [--steps N]
       python -m benchmarks.overhead --framework keras [--backend NAME] [--models NAME,NAME] [--rounds N]

All arms train the same model on the same batches in one process on one thread, a few steps each in turn and in another
order every time. CPU time is measured; what else the machine does still shows, in shared caches and memory, so let it
be idle. Every arm is compared with the unguarded one in the same round; the second unguarded arm shows how far noise
goes. The exit code is 1 if the guard misses its target, or if anything disturbed a run.

Keras picks its backend once per process: without --backend, each one is measured in a process of its own.
"""

import argparse
import subprocess
import sys

from benchmarks.overhead.keras.machine import BACKENDS, choose

MODELS = ("mlp", "cnn", "transformer")
WELL_KNOWN = ("resnet", "classifier", "bert")
"""Of Keras alone; named with ``--models``."""


def parsed_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--framework", choices=("lightning", "keras"), default="lightning", help="default: lightning")
    parser.add_argument("--backend", choices=BACKENDS, help="of Keras (default: all, one after the other)")
    parser.add_argument("--steps", type=int, help="Lightning: measured steps of each arm (default: by model)")
    parser.add_argument("--rounds", type=int, help="Keras: turns of each arm (default: by model)")
    parser.add_argument("--models", default=",".join(MODELS), help="some of them (default: %(default)s)")
    options = parser.parse_args()
    for name in options.models.split(","):
        known = (*MODELS, *WELL_KNOWN) if options.framework == "keras" else MODELS
        if name not in known:
            parser.error(f"--models: expected some of {', '.join(known)}, received {name}")
    for name in ("steps", "rounds"):
        value = getattr(options, name)
        if value is not None and value < 1:
            parser.error(f"--{name}: expected a whole number >= 1, received {value}")
    return options


def measure_keras(options: argparse.Namespace) -> bool:
    """One backend in this process, or all of them in processes of their own."""
    if options.backend is None:
        commands = [[sys.executable, "-m", "benchmarks.overhead", *sys.argv[1:], "--backend", b] for b in BACKENDS]
        codes = [subprocess.run(command, check=False).returncode for command in commands]
        return not any(codes)
    choose(options.backend)
    from benchmarks.overhead.keras.table import measure  # imports Keras with this backend

    return measure(options.models.split(","), options.rounds, options.backend)


def main() -> int:
    """Compare the arms on each model; return the exit code."""
    options = parsed_options()
    if options.framework == "keras":
        return 0 if measure_keras(options) else 1
    from benchmarks.overhead.lightning.table import measure

    return 0 if measure(options.models.split(","), options.steps) else 1


if __name__ == "__main__":
    sys.exit(main())
