"""The data: scikit-learn's hand-written digits, real, small and shipped with the library."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nan_callbacks.demo.faults import Fault, Images

Labels = NDArray[np.int64]

TEST_IMAGES = 450
"""A quarter of the 1797 digits: one image more or less is 0.2 percentage points of accuracy."""

BRIGHTEST = 16.0
"""Largest pixel value of the set; images are scaled to [0, 1]."""


@dataclass(frozen=True)
class Digits:
    """Images of shape ``[count, 8, 8]`` in [0, 1] and their labels."""

    train_images: Images
    train_labels: Labels
    test_images: Images
    test_labels: Labels


def load_digits(seed: int) -> Digits:
    """Load and split the digits.

    Args:
        seed: Seed of the split.
    """
    import sklearn.datasets

    data: Any = sklearn.datasets.load_digits()
    order = np.random.default_rng([seed, 1]).permutation(len(data.target))
    images = (data.images[order] / BRIGHTEST).astype(np.float32)
    labels = data.target[order].astype(np.int64)
    return Digits(images[TEST_IMAGES:], labels[TEST_IMAGES:], images[:TEST_IMAGES], labels[:TEST_IMAGES])


@dataclass(frozen=True)
class Batches:
    """The training batches, the same in every framework and in every arm but for the fault.

    A batch is a function of its place alone, so that reading it twice or out of turn changes nothing.
    """

    digits: Digits
    batch_size: int
    epochs: int
    seed: int
    fault: Fault | None = None

    @property
    def per_epoch(self) -> int:
        """Batches of an epoch; the incomplete last one is left out."""
        return len(self.digits.train_labels) // self.batch_size

    @property
    def total_steps(self) -> int:
        """Batches of the whole run."""
        return self.per_epoch * self.epochs

    def epoch(self, epoch: int) -> Iterator[tuple[Images, Labels]]:
        """The batches of one epoch, counted from 0, in their order."""
        order = np.random.default_rng([self.seed, 2, epoch]).permutation(len(self.digits.train_labels))
        for index in range(self.per_epoch):
            rows = order[index * self.batch_size : (index + 1) * self.batch_size]
            images = self.digits.train_images[rows]
            if self.fault is not None:
                step = epoch * self.per_epoch + index
                images = self.fault.images(images, step, self.total_steps, self.seed)
            yield images, self.digits.train_labels[rows]
