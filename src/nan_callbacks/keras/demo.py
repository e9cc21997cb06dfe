"""The demo's arm in Keras: an ordinary model and ``fit``, to which the guard is one more callback."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from nan_callbacks.demo.arm import Arm, ArmResult, Progress
from nan_callbacks.demo.muted import muted_stderr
from nan_callbacks.keras import NaNGuard


def digits_net() -> keras.Model:
    """A small convolutional net with BatchNorm, the same as in the other frameworks. Nothing in it knows of the guard.

    Its input is a batch of images of shape ``[count, 8, 8, 1]``, its output ten logits per image.
    """
    return keras.Sequential(
        [
            layers.Input((8, 8, 1)),
            layers.Conv2D(16, 3, padding="same", name="conv_1"),
            # Keras' own 0.99 is meant for runs of many more steps: it would average over a fifth of this one.
            layers.BatchNormalization(momentum=0.9, name="norm_1"),
            layers.ReLU(),
            layers.MaxPooling2D(2),
            layers.Conv2D(32, 3, padding="same", name="conv_2"),
            layers.BatchNormalization(momentum=0.9, name="norm_2"),
            layers.ReLU(),
            layers.MaxPooling2D(2),
            layers.Flatten(),
            layers.Dense(64, activation="relu", name="dense_1"),
            layers.Dense(10, name="dense_2"),
        ],
        name="net",
    )


class ArmSchedule(keras.optimizers.schedules.LearningRateSchedule):
    """The learning rate that the arm's schedule says, as Keras asks for it: by the optimizer's count of steps.

    Args:
        arm: What is trained.
    """

    def __init__(self, arm: Arm) -> None:
        super().__init__()
        scales = [arm.learning_rate_scale(step) for step in range(arm.batches.total_steps + 1)]
        self.rates = np.asarray(scales, "float32") * np.float32(arm.recipe.learning_rate)

    def __call__(self, step: Any) -> Any:
        """The rate of a step, a scalar."""
        return ops.take(self.rates, ops.minimum(ops.cast(step, "int32"), len(self.rates) - 1))


class EpochDisplay(keras.callbacks.Callback):
    """Shows the test accuracy after every epoch.

    Args:
        progress: Where to show it.
    """

    def __init__(self, progress: Progress) -> None:
        super().__init__()
        self.progress = progress

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Show the accuracy of the epoch."""
        self.progress.epoch(float((logs or {})["val_accuracy"]))


class Saying(io.TextIOBase):
    """A standard output whose lines are shown in the demo's own way.

    Args:
        progress: Where to show them.
    """

    def __init__(self, progress: Progress) -> None:
        super().__init__()
        self.progress = progress
        self._unfinished = ""

    def write(self, text: str) -> int:
        """Show every line that is complete and not blank."""
        *lines, self._unfinished = (self._unfinished + text).split("\n")
        for line in lines:
            if line.strip():
                self.progress.say(line)
        return len(text)


def train_arm(arm: Arm, progress: Progress) -> ArmResult:
    """Train one arm of the demo on the active backend of Keras.

    Args:
        arm: What to train.
        progress: Where to show how it goes.
    """
    guard = NaNGuard(checkup=False, events_path=arm.events_path) if arm.guarded else None
    test = (_as_images(arm.digits.test_images), arm.digits.test_labels)
    with contextlib.redirect_stdout(Saying(progress)):
        with muted_stderr():  # imports TensorFlow wherever it is installed
            keras.utils.set_random_seed(arm.recipe.seed)
        model = digits_net()
        model.compile(
            optimizer=keras.optimizers.SGD(ArmSchedule(arm), momentum=arm.recipe.momentum),
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
        )
        model.fit(
            _training_batches(arm), epochs=arm.recipe.epochs, steps_per_epoch=arm.batches.per_epoch,
            shuffle=False, validation_data=test, validation_batch_size=len(test[1]), verbose=0,
            callbacks=[EpochDisplay(progress), *([guard] if guard else [])],
        )  # fmt: skip
        accuracy = model.evaluate(*test, batch_size=len(test[1]), verbose=0, return_dict=True)["accuracy"]
    if guard is None:
        return ArmResult(accuracy=float(accuracy))
    return ArmResult(accuracy=float(accuracy), summary=guard.summary, events=guard.events)


def _training_batches(arm: Arm) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The batches of all epochs, one after the other."""
    for epoch in range(arm.recipe.epochs):
        for images, labels in arm.batches.epoch(epoch):
            yield _as_images(images), labels


def _as_images(images: np.ndarray) -> np.ndarray:
    return images[..., np.newaxis]
