"""A `model.fit` that is held open, so that several can take turns within one process."""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from benchmarks.overhead.keras.arms import Arm
from benchmarks.overhead.keras.workloads import Arrays, Workload
from benchmarks.overhead.stopwatch import Stopwatch

BATCHES = 8
"""Different batches, used in turn."""
EPOCH_STEPS = 1_000_000
"""Steps of the one epoch: more than any run makes."""
LEARNING_RATE = 1e-4
"""So small that labels without a meaning give no cause for an incident."""


@dataclass(frozen=True)
class Turn:
    """Seconds of some consecutive steps.

    Attributes:
        cpu: CPU time of the whole process.
        wall: Time on the clock.
        own: CPU time of the training thread in the guard's Python code.
    """

    cpu: float
    wall: float
    own: float

    def __add__(self, other: "Turn") -> "Turn":
        return Turn(self.cpu + other.cpu, self.wall + other.wall, self.own + other.own)


class TurnTaker(keras.callbacks.CallbackList):
    """The callback list of a fit, which pauses in between two steps.

    Not a callback itself: one that looks at batches would change how Keras treats all others.

    Args:
        pause: Called before each step.
    """

    def __init__(
        self, callbacks: list[keras.callbacks.Callback], model: keras.Model, pause: Callable[[], None]
    ) -> None:
        super().__init__(callbacks, add_history=True, model=model, verbose=0, epochs=1, steps=EPOCH_STEPS)
        self._pause = pause
        self.logs: Any = None

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        self._pause()
        super().on_train_batch_begin(batch, logs)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        super().on_train_batch_end(batch, logs)
        self.logs = logs

    def finish(self) -> None:
        """Wait for everything that was begun: callbacks in other threads, and the device."""
        self._flush_futures()
        for value in (self.logs or {}).values():
            float(value)


class OpenFit:
    """One arm of the comparison: a fit in a thread of its own, which is advanced from outside.

    Args:
        arm: What guards it.
        workload: What it trains.
        follow: Called with the model and the stopwatch of the guard at the end of the first turn.
    """

    def __init__(self, arm: Arm, workload: Workload, follow: Callable[[keras.Model, Stopwatch], None]) -> None:
        self.callback = arm.callback() if arm.callback else None
        self._workload = workload
        self._follow = follow
        self._watch = Stopwatch(time.thread_time)
        self._asked, self._answered = threading.Semaphore(0), threading.Semaphore(0)
        self._left: int | None = None
        self._began: tuple[float, float, float] = (0.0, 0.0, 0.0)
        self._turn: Turn | None = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._fit, daemon=True)
        self._thread.start()
        self._wait()

    def turn(self, steps: int) -> Turn:
        """Make some steps and time them; one before them finds the caches full of another model and is not timed."""
        self._left = steps + 1
        self._asked.release()
        self._wait()
        assert self._turn is not None
        return self._turn

    def close(self) -> None:
        """End the fit in an orderly way."""
        self._left = None
        self._asked.release()
        self._thread.join()

    def _wait(self) -> None:
        self._answered.acquire()
        if self._error is not None:
            raise self._error

    def _fit(self) -> None:
        try:
            keras.utils.set_random_seed(0)
            self._model = model = self._workload.build()
            loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
            model.compile(keras.optimizers.AdamW(LEARNING_RATE), loss)
            self._takes_turns = TurnTaker([self.callback] if self.callback else [], model, self._pause)
            model.fit(batches(self._workload), steps_per_epoch=EPOCH_STEPS, verbose=0, callbacks=self._takes_turns)
        except BaseException as error:
            self._error = error
            self._answered.release()

    def _pause(self) -> None:
        """Between two steps: end a turn, wait for the next one, or just go on."""
        if self._left is None or self._left == 0:
            if self._left == 0:
                self._end_turn()
            self._answered.release()
            self._asked.acquire()
            if self._left is None:
                self._model.stop_training = True
                return
            self._measured = self._left - 1
        elif self._left == self._measured:
            self._takes_turns.finish()
            self._began = self._now()
        self._left -= 1

    def _end_turn(self) -> None:
        self._takes_turns.finish()
        first = self._turn is None
        self._turn = Turn(*(now - then for now, then in zip(self._now(), self._began, strict=True)))
        if first:
            self._follow(self._model, self._watch)

    def _now(self) -> tuple[float, float, float]:
        return time.process_time(), time.perf_counter(), self._watch.seconds


def batches(workload: Workload) -> Any:
    """The same few batches over and over, in the way that costs the backend least."""
    generator = np.random.default_rng(1)
    arrays = [workload.batch(generator) for _ in range(BATCHES)]
    if keras.backend.backend() != "tensorflow":
        return _endless(arrays)
    import tensorflow

    x, y = (np.stack(part) for part in zip(*arrays, strict=True))
    return tensorflow.data.Dataset.from_tensor_slices((x, y)).cache().repeat()


def _endless(arrays: list[Arrays]) -> Iterator[Arrays]:
    while True:
        yield from arrays
