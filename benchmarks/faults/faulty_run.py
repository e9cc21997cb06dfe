"""What a faulty run is, and how one is trained."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from pytorch_lightning import Callback, LightningModule, Trainer

from benchmarks.faults.module import Built, evaluate_net
from benchmarks.healthy import silence_lightning


@dataclass(frozen=True)
class FaultyRun:
    """A healthy training run and one fault in it.

    Attributes:
        name: Family, fault and task, unique.
        build: Seed and whether the fault is in, to module, data and arguments of the Trainer.
        note: What goes wrong, in a line.
        expected: The strongest action a guard should need; "none" for a fault that a run survives by itself.
        higher_is_better: Whether `evaluate` returns an accuracy (True) or a loss (False).
        evaluate: Trained module to the held-out metric.
    """

    name: str
    build: Callable[[int, bool], Built]
    note: str
    expected: Literal["none", "skip", "rollback", "stop"]
    higher_is_better: bool
    evaluate: Callable[[LightningModule], float] = evaluate_net


def train(run: FaultyRun, seed: int, with_fault: bool, callbacks: Sequence[Callback] = ()) -> LightningModule:
    """Build and fit one arm of a run on the CPU, silently, and return the trained module."""
    silence_lightning()
    module, batches, trainer_kwargs = run.build(seed, with_fault)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = Trainer(
            accelerator="cpu",
            devices=1,
            max_epochs=1,
            callbacks=list(callbacks),
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            **trainer_kwargs,
        )
        trainer.fit(module, batches)
    return module
