"""The three faults. Each one corrupts what training really sees; none of them tells the guard."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Images = NDArray[np.float32]
Corruption = Callable[[Images, np.random.Generator], Images]


@dataclass(frozen=True, kw_only=True)
class Fault:
    """Something that goes wrong during training."""

    name: str
    """The word of the command line."""
    title: str
    """The words of the table."""
    happening: str
    """What goes wrong, in one clause; ``{when}`` stands for the steps."""
    moments: tuple[float, ...]
    """Fractions of the run. A corruption hits these steps; a learning rate is wrong from the first one on."""
    corrupt: Corruption | None = None
    """Makes the corrupted images of a batch; None if the data are left alone."""
    learning_rate_factor: float = 1.0
    """Factor on the learning rate."""

    def steps(self, total_steps: int) -> tuple[int, ...]:
        """The steps at which the fault happens in a run of this length."""
        return tuple(int(total_steps * moment) for moment in self.moments)

    def images(self, images: Images, step: int, total_steps: int, seed: int) -> Images:
        """The images that training sees at a step: the very same array unless the fault happens now."""
        if self.corrupt is None or step not in self.steps(total_steps):
            return images
        return self.corrupt(images.copy(), np.random.default_rng([seed, step]))

    def learning_rate_scale(self, step: int, total_steps: int) -> float:
        """The factor on the learning rate at a step."""
        return self.learning_rate_factor if step >= self.steps(total_steps)[0] else 1.0

    def describe(self, total_steps: int) -> str:
        """What goes wrong, with the steps of a run of this length."""
        return self.happening.format(when=", ".join(str(step) for step in self.steps(total_steps)))


def lose_pixels(images: Images, rng: np.random.Generator) -> Images:
    """Set four pixels of one image to NaN, as a reader does that meets empty cells."""
    sample = rng.integers(len(images))
    pixels = rng.choice(images[sample].size, size=4, replace=False)
    images[sample].reshape(-1)[pixels] = np.nan
    return images


def rescale(images: Images, rng: np.random.Generator) -> Images:
    """Multiply four images by 10 000, as happens when some samples skip the preprocessing."""
    samples = rng.choice(len(images), size=min(4, len(images)), replace=False)
    images[samples] *= np.float32(1e4)
    return images


FAULTS: dict[str, Fault] = {
    fault.name: fault
    for fault in (
        Fault(
            name="nan_rows",
            title="rows with NaN",
            happening="one image of each of the batches at steps {when} has NaN pixels",
            moments=(0.2, 0.5, 0.8),
            corrupt=lose_pixels,
        ),
        Fault(
            name="scaled_samples",
            title="scaled samples",
            happening="four images of each of the batches at steps {when} are 10 000 times too bright",
            moments=(0.2, 0.5, 0.8, 0.97),
            corrupt=rescale,
        ),
        Fault(
            name="learning_rate",
            title="learning rate",
            happening="from step {when} on, the schedule says a rate 100 times too high",
            moments=(0.0,),
            learning_rate_factor=100.0,
        ),
    )
}
