"""Owning ``model.train_function`` while ``fit`` runs."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import Any, Protocol

from nan_callbacks.keras.backend import Backend
from nan_callbacks.keras.call_stack import inside_fit
from nan_callbacks.keras.model_parts import is_finite
from nan_callbacks.keras.readings import Reading


class Driver(Protocol):
    """Who decides: the guard."""

    @property
    def is_aside(self) -> bool:
        """Whether the guard no longer takes part."""

    def before_step(self, batch: Any) -> Any:
        """Limits for the coming step; None if the guard failed."""

    def after_step(self, readings: list[Reading]) -> bool:
        """Judge a step; whether the logs must be computed anew."""

    def could_not_guard(self, error: Exception) -> None:
        """The guarded step cannot be traced, the model's own can."""

    def broke_off(self, error: BaseException | None = None) -> None:
        """An error of the training step is about to leave ``fit``, which will not say goodbye to its callbacks."""


class OwnedTrainFunction:
    """Stands in for a model's train function.

    ``fit`` looks ``model.train_function`` up at every step. Calls from anywhere else (``train_on_batch``, a later fit
    without us) go to the model's own function.

    Where Keras does not wait for its device after a step, neither does this: the step is judged once the next batch has
    been fetched, or when somebody wants to know (:meth:`settle`).

    Args:
        model: The model of the fit.
        backend: Its guarded step.
        driver: The guard.
        unobserved: Whether no callback looks at the end of each batch, where a step that is not judged yet would show.
    """

    def __init__(self, model: Any, backend: Backend, driver: Driver, *, unobserved: bool = False) -> None:
        self.original: Callable[..., Any] = model.train_function
        self._model = model
        self._history = model.history
        self._backend = backend
        self._driver = driver
        self._works = False
        self._good_logs: Any = None
        self._unobserved = unobserved
        self._pending: Callable[[], list[Reading]] | None = None
        self._thread = threading.get_ident()

    def install(self) -> None:
        """Take the place of the model's function."""
        self._model.train_function = self

    def uninstall(self) -> None:
        """Give the place back."""
        if self._model.train_function is self:
            self._model.train_function = self.original

    def settle(self) -> None:
        """Judge the newest step if that has not been done yet. Callbacks in threads of their own see it unjudged."""
        if self._pending is not None and threading.get_ident() == self._thread:
            pending, self._pending = self._pending, None
            self._driver.after_step(pending())

    def __call__(self, *args: Any) -> Any:
        """Train on the batches of one call."""
        if self._driver.is_aside or self._model.history is not self._history:
            self._pending = None
            self.uninstall()
            return self.original(*args)
        if sys._getframe(1).f_code.co_name != "fit" and not inside_fit(self._model):  # the quick look first
            return self.original(*args)
        try:
            return self._guarded_call(*args)
        except StopIteration:  # the data have come to their end
            self._backend.abandon()
            raise
        except BaseException as error:
            self._backend.abandon()
            self.uninstall()
            self._driver.broke_off(error)
            raise

    def _guarded_call(self, *args: Any) -> Any:
        batches = self._backend.begin(*args)
        logs = None
        for _ in range(self._model.steps_per_execution):
            try:
                batch = next(batches)
            except StopIteration:
                if logs is None:
                    raise
                break
            if self._stops_late():
                logs = self._good_logs
                break
            logs = self._step(batch)
            if self._model.stop_training:
                break
        return self._backend.end(logs)

    def _stops_late(self) -> bool:
        """Whether the training ends with a step that has only now been judged: the batch is not trained on."""
        stopping = self._model.stop_training
        self.settle()
        return not stopping and bool(self._model.stop_training)

    def _step(self, batch: Any) -> Any:
        limits = None if self._driver.is_aside else self._driver.before_step(batch)
        if limits is None:
            return self._backend.run_plain(self.original, batch)
        try:
            logs, read = self._backend.run(batch, limits)
            late = self._works and self._unobserved and self._backend.runs_ahead
            readings = [] if late else read()
        except Exception as error:
            if self._works:
                raise
            logs = self._backend.run_plain(self.original, batch)  # the user's own error comes out here
            self._driver.could_not_guard(error)
            return logs
        self._works = True
        if late:
            self._pending, self._good_logs = read, logs
            return logs
        if not self._driver.after_step(readings):
            self._good_logs = logs
            return logs
        return self._clean(self._backend.result(logs))

    def _clean(self, logs: Any) -> Any:
        """Logs of a step that did not happen: never non-finite."""
        if not isinstance(logs, dict):
            return logs if self._good_logs is None or is_finite(logs) else self._good_logs
        good = self._good_logs if isinstance(self._good_logs, dict) else {}
        return {key: value if is_finite(value) else good.get(key, 0.0) for key, value in logs.items()}
