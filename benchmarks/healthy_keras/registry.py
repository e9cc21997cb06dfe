"""The register of healthy Keras runs: what one is, how it is entered, how it is trained."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np


@dataclass(frozen=True)
class Fit:
    """One call of `model.fit`.

    Attributes:
        model: A compiled model; several fits of a run may share it.
        x: The inputs.
        y: The targets.
        options: Further arguments of `fit`.
    """

    model: keras.Model
    x: Any
    y: np.ndarray
    options: dict[str, Any] = field(default_factory=dict)

    def run(self, callbacks: Sequence[keras.callbacks.Callback]) -> None:
        """Train to the end."""
        own = self.options.get("callbacks", [])
        options = {"batch_size": 32, "verbose": 0, **self.options, "callbacks": [*own, *callbacks]}
        self.model.fit(self.x, self.y, **options)


Build = Callable[[np.random.Generator], list[Fit]]


@dataclass(frozen=True)
class HealthyRun:
    """A training run in which nothing is wrong, so that every intervention in it is a false alarm.

    Attributes:
        name: Unique name, in snake_case.
        build: Takes a generator for its data; returns its fits, in order.
        note: What makes the numbers of this run unusual.
    """

    name: str
    build: Build
    note: str

    def fits(self, seed: int) -> list[Fit]:
        """Build the run from a seed, with fresh weights."""
        keras.backend.clear_session()
        keras.utils.set_random_seed(seed)
        return self.build(np.random.default_rng(seed))


HEALTHY_RUNS: dict[str, HealthyRun] = {}
"""All runs by name; filled by the family modules when they are imported."""


def healthy_run(note: str) -> Callable[[Build], Build]:
    """Enter a build function in the register under its own name."""

    def register(build: Build) -> Build:
        name = build.__name__
        if name in HEALTHY_RUNS:
            raise ValueError(f"There are two healthy runs named `{name}`; give one of them another name.")
        HEALTHY_RUNS[name] = HealthyRun(name, build, note)
        return build

    return register


def compiled(model: keras.Model, optimizer: Any, loss: str, **options: Any) -> keras.Model:
    """The model, ready for `fit`."""
    model.compile(optimizer, loss, **options)
    return model
