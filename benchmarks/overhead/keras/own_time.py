"""Which functions are the guard's own, and which of those that they call are not."""

from collections.abc import Iterator
from typing import Any

import keras

from benchmarks.overhead.stopwatch import Stopwatch
from nan_callbacks.keras.train_function import OwnedTrainFunction


def time_guard(model: keras.Model, watch: Stopwatch) -> None:
    """Let a stopwatch follow the guard of a fit that is under way; nothing happens if there is none.

    What the guard has compiled into the step cannot be told from the rest of the step: on TensorFlow and JAX only the
    Python around the compiled step counts.

    Args:
        model: The model, after the first steps of its fit.
        watch: The stopwatch of this fit.
    """
    function: Any = model.train_function
    if not isinstance(function, OwnedTrainFunction):
        return
    backend: Any = function._backend
    begin = backend.begin

    def begin_with_foreign_batches(*args: Any) -> Iterator[Any]:
        return ForeignBatches(begin(*args), watch)

    function._guarded_call = watch.own(function._guarded_call)
    backend.begin = begin_with_foreign_batches
    if keras.backend.backend() == "torch":
        _time_hooks(backend, watch)
    else:
        backend._compiled = watch.foreign(backend._compiled)


class ForeignBatches:
    """An iterator that counts as somebody else's."""

    def __init__(self, batches: Iterator[Any], watch: Stopwatch) -> None:
        self._next = watch.foreign(batches.__next__)

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        return self._next()


def _time_hooks(backend: Any, watch: Stopwatch) -> None:
    """On torch the guard works within the step, in its hooks."""
    from nan_callbacks.keras import backend_torch

    backend._train_function = watch.foreign(backend._train_function)

    class TimedStep(backend_torch._Step):
        """A step whose hooks are followed."""

        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            self.on_loss = watch.own(self.on_loss)
            self.scale_rate = watch.own(self.scale_rate)

        def on_apply(self, stream: int, optimizer: Any, original: Any, *args: Any) -> Any:
            return watch.own(super().on_apply)(stream, optimizer, watch.foreign(original), *args)

    backend.make_step = TimedStep
