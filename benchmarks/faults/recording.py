"""Records the number stream of a run: what a guard would see at each optimizer step.

Usage: python -m benchmarks.faults.recording --directory streams [--only lr_] [--seeds N]
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
from pytorch_lightning import LightningModule, Trainer

from benchmarks.faults import FAULTY_RUNS, train
from benchmarks.healthy.recording import StreamRecorder


class FaultRecorder(StreamRecorder):
    """The recorder of the healthy runs, for a loss that a scaler multiplies, perhaps by 0."""

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Put the loss as the module returned it into the last row."""
        index, _, grad_norm, param_norm, learning_rate = self.rows[-1]
        self.rows[-1] = (index, float(outputs["loss"]), grad_norm, param_norm, learning_rate)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--directory", type=Path, required=True)
    parser.add_argument("--only", default="", help="record the runs whose name contains this")
    parser.add_argument("--seeds", type=int, default=1, help="seeds 0 to N-1")
    arguments = parser.parse_args()
    arguments.directory.mkdir(parents=True, exist_ok=True)
    for run in FAULTY_RUNS.values():
        if arguments.only not in run.name:
            continue
        for seed in range(arguments.seeds):
            for with_fault in (True, False):
                started, recorder = time.perf_counter(), FaultRecorder()
                metric = run.evaluate(train(run, seed, with_fault, [recorder]))
                arm = "fault" if with_fault else "clean"
                np.savez(arguments.directory / f"{run.name}-{arm}-{seed}.npz", **recorder.arrays())
                seconds = time.perf_counter() - started
                print(f"{run.name} {arm} seed {seed}: metric {metric:.4g}, {seconds:.1f} s", flush=True)


if __name__ == "__main__":
    main()
