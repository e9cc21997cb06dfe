"""The register of healthy runs: what one is, how it is entered, how it is trained."""

import logging
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer, seed_everything
from torch.utils.data import DataLoader

Parts = tuple[LightningModule, DataLoader[Any], dict[str, Any]]
Build = Callable[[int], Parts]


@dataclass(frozen=True)
class HealthyRun:
    """A training run in which nothing is wrong, so that every intervention in it is a false alarm.

    Attributes:
        name: Unique name, in snake_case.
        build: Takes a seed; returns the module, its training data and the keyword arguments of the Trainer.
        note: What makes the numbers of this run unusual.
    """

    name: str
    build: Build
    note: str

    def train(self, seed: int, callbacks: Sequence[Callback] = ()) -> Trainer:
        """Build the run from a seed, train it to its end on the CPU, and return the finished trainer."""
        module, loader, trainer_kwargs = self.build(seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Lightning's advice on worker counts and logging intervals
            own_callbacks = trainer_kwargs.pop("callbacks", [])
            trainer = Trainer(**QUIET_TRAINER, **trainer_kwargs, callbacks=[*own_callbacks, *callbacks])
            trainer.fit(module, loader)
        return trainer


QUIET_TRAINER: dict[str, Any] = {
    "accelerator": "cpu",
    "devices": 1,
    "max_epochs": -1,
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}
"""Every run ends by `max_steps`, and says nothing of its own."""

HEALTHY_RUNS: dict[str, HealthyRun] = {}
"""All runs by name; filled by the family modules when they are imported."""


def healthy_run(note: str) -> Callable[[Build], Build]:
    """Enter a build function in the register under its own name, and seed every generator before it runs."""

    def register(build: Build) -> Build:
        @wraps(build)
        def seeded_build(seed: int) -> Parts:
            seed_everything(seed, verbose=False)
            return build(seed)

        name = build.__name__
        if name in HEALTHY_RUNS:
            raise ValueError(f"There are two healthy runs named `{name}`; give one of them another name.")
        HEALTHY_RUNS[name] = HealthyRun(name, seeded_build, note)
        return seeded_build

    return register


def silence_lightning() -> None:
    """Keep Lightning's start and end messages out of a table of forty runs."""
    for name in ("pytorch_lightning", "lightning.pytorch", "lightning_fabric", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
