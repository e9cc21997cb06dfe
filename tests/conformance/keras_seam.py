"""Feeds number streams through Keras' session: the model and the compiled step are stand-ins."""

from types import SimpleNamespace
from typing import Any

import numpy as np

from nan_callbacks.core import GuardConfig, Limits, Monitor
from nan_callbacks.core.journal import Journal
from nan_callbacks.keras.readings import LR_SCALE, Layout, Reading, unpack
from nan_callbacks.keras.session import GuardSession
from tests.conformance.bare_core import Played
from tests.conformance.record import watching_the_core
from tests.conformance.streams import RATE, Step, Stream, name


class SGD:
    """Its name is all that is asked of it."""


class Backend:
    """A compiled step that measures what the stream says."""

    def __init__(self, stream: Stream) -> None:
        self.optimizers = [SGD() for _ in range(stream.optimizers)]
        self.index, self.step = 0, stream.steps[0]
        self.snapshots: list[tuple[str, int, int]] = []
        self.slots: dict[int, Any] = {}

    def capture(self, slot: int, epoch: int) -> None:
        self.snapshots.append(("taken", self.index, slot))

    def restore(self, slot: int, epoch: int, *, streams: bool) -> None:
        self.snapshots.append(("restored", self.index, slot))
        # What a snapshot holds is finite; how large it is, the stream's next step will say.
        self.step = SimpleNamespace(size=1.0)

    def streams(self) -> None:
        """There are none."""

    def set_streams(self, streams: None) -> None:
        """Nothing to set."""

    def parameter_norms(self) -> dict[str, float]:
        return {name(index): self.step.size for index in range(len(self.optimizers))}

    def run(self, step: Step, limits: np.ndarray) -> list[Reading]:
        """The readings of one step, through the same vector as those of a compiled one."""
        layouts, vectors = [], []
        for stream, update in enumerate(step.updates):
            names = () if update.grad_norm is None else (name(stream),)
            row = limits[stream]
            admitted = as_limits(row).admits(update.loss, update.grad_norm, step.jump)
            numbers = [update.loss, update.grad_norm, step.jump, step.loss_scale, np.float32(RATE) * row[LR_SCALE]]
            head = [np.nan if number is None else number for number in [*numbers, admitted]]
            layouts.append(Layout(stream, "SGD", names, update.loss is not None, True, step.loss_scale is not None))
            vectors += [head, [update.grad_norm, not np.isfinite(update.grad_norm)] if names else []]
        return unpack(layouts, np.concatenate(vectors).astype(np.float32))


def as_limits(row: np.ndarray) -> Limits:
    """One row of what a compiled step is given."""
    loss, grad_norm, jump, *permissions, _, _ = (float(number) for number in row)
    return Limits(loss, grad_norm, jump, *(permission > 0.5 for permission in permissions))


class KerasSeam:
    """Plays a stream as the train function's driver does."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.backend = Backend(stream)
        self.rows: list[np.ndarray] = []
        """What the compiled steps were given: limits and the scale of the learning rate."""
        model: Any = SimpleNamespace(stop_training=False, trainable_weights=[])
        monitor = Monitor(GuardConfig(**stream.settings))
        self.session = GuardSession(model, self.backend, monitor, Journal(None, None))

    def play(self) -> Played:
        played = Played()
        with watching_the_core() as seen:
            for index, step in enumerate(self.stream.steps):
                epoch, batch = self.stream.place(index)
                if batch == 0:
                    self.session.epoch_start(epoch)
                self.backend.index, self.backend.step = index, step
                rows = self.session.before_step((np.float32([1.0 if step.batch_finite else np.nan]),))
                self.backend.step = step
                self.rows += list(rows)
                played.limits += [self.session.monitor.limits(stream) for stream in range(self.stream.optimizers)]
                self.session.after_step(self.backend.run(step, rows))
        played.events = self.session.journal.events
        played.decisions = seen.decisions
        played.snapshots = self.backend.snapshots
        return played
