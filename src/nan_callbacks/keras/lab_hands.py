"""What the Keras laboratory needs from a backend: the model's own step, run once more on copies of the state."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import keras
import numpy as np
from keras import ops

from nan_callbacks.keras.building import build, is_idle
from nan_callbacks.keras.interception import LossMemory, scaled_rate
from nan_callbacks.keras.model_parts import running_variances, scales_loss


class Unsupported(Exception):  # noqa: N818 - a trial that cannot be made is no error
    """This trial cannot be made here; the message says why."""


class ModelRaised(Exception):  # noqa: N818
    """Carries what the user's code raised out of a trial."""


@dataclass
class Numbers:
    """What one step of a trial gave."""

    loss: float | None = None
    norms: list[tuple[str, float]] | None = None
    """Gradient norm of each variable by path, without the loss scale; None if no optimizer was called."""

    @property
    def grad_norm(self) -> float | None:
        """Global norm; NaN if a gradient is not finite."""
        if self.norms is None:
            return None
        each = [norm for _, norm in self.norms]
        return math.hypot(*each) if all(map(math.isfinite, each)) else math.nan


@dataclass
class Turns:
    """What a trial changes inside of the step."""

    rate: float = 1.0
    """Factor on every learning rate."""
    clip_norm: float | None = None
    """Global norm that gradients are clipped to, besides the run's own clipping."""
    update: bool = False
    """Whether optimizers update."""


class Hands(Protocol):
    """One model's step on one backend."""

    def held_still(self) -> AbstractContextManager[Any]:
        """Inside, every change to the training state is a change to a copy."""

    def cast(self, dtype: str) -> AbstractContextManager[Any]:
        """Inside, floating point variables are of another dtype; called inside of :meth:`held_still`."""

    def step(self, batch: Any, turns: Turns) -> Numbers:
        """The model's own train step, eagerly or compiled.

        Raises:
            ModelRaised: What the model's code raised.
            Unsupported: If the step cannot be run.
        """

    def outputs(self, probe: Probe, call: Callable[..., Any], *inputs: Any) -> list[np.ndarray]:
        """Outputs of the layers that a probe watches during one call, in order.

        Where the call is compiled, that happens once for a probe, a function and the shapes of its inputs.
        """


class Probe(Protocol):
    """Watches layers while a model is called."""

    def watching(self) -> AbstractContextManager[list[Any]]:
        """Inside, every watched layer's output is added to the list."""


def make_hands(model: Any, state: Callable[[], Any]) -> Hands:
    """The step of a model on the active backend.

    Args:
        model: A compiled model.
        state: JAX only: what ``fit`` hands around while the model's variables hold nothing; returns None outside.
    """
    module = importlib.import_module(f"nan_callbacks.keras.lab_{keras.backend.backend()}")
    made: Hands = module.StepHands(model, state)
    return made


def first_built(model: Any, batch: Any) -> None:
    """Build what has not been built: the model, its losses, metrics and optimizer."""
    build(model, batch)
    if model.optimizer is not None and not model.optimizer.built and not is_idle(model):
        model.optimizer.build(model.trainable_variables)


@contextmanager
def models_fault(*out_of_memory: type[BaseException]) -> Iterator[None]:
    """Exceptions in here are the model's, a result of the trial.

    Args:
        *out_of_memory: The backend's exceptions that may tell of a lack of memory.
    """
    try:
        yield
    except (Unsupported, ModelRaised):
        raise
    except Exception as error:
        if isinstance(error, MemoryError) or (isinstance(error, out_of_memory) and _tells_of_memory(error)):
            raise Unsupported("not enough memory on the device") from error
        raise ModelRaised from error


def _tells_of_memory(error: BaseException) -> bool:
    text = str(error).lower()
    return any(words in text for words in ("out of memory", "resource_exhausted", "oom when"))


def safe_norm(values: Any) -> Any:
    """L2 norm that cannot overflow, in float32 at least: NaN exactly if an element is not finite.

    Args:
        values: A dense backend tensor of any floating dtype.
    """
    if 0 in tuple(values.shape):
        return ops.zeros(())
    if keras.backend.standardize_dtype(values.dtype) != "float64":
        values = ops.cast(values, "float32")
    largest = ops.max(ops.abs(values))
    safe = ops.where(largest > 0, largest, ops.ones_like(largest))
    norm = safe * ops.sqrt(ops.sum(ops.square(values / safe)))
    return ops.where(ops.all(ops.isfinite(values)), norm, ops.full_like(norm, math.nan))


def clip_factor(norms: Any, clip_norm: Any, scale: Any) -> Any:
    """What gradients are multiplied by so that their global norm (without the loss scale) stays under a limit."""
    total = ops.sqrt(ops.sum(ops.square(norms / scale)))
    return ops.where(total > clip_norm, clip_norm / total, ops.ones_like(total))


class Watcher:
    """Takes down loss and gradients as they pass by in a step that Python runs.

    Args:
        turns: What the trial changes.
        dense: The numbers of a gradient that may be sparse.
        times: A gradient times a factor.
    """

    def __init__(self, turns: Turns, dense: Callable[[Any], Any], times: Callable[[Any, Any], Any]) -> None:
        self._turns, self._dense, self._times = turns, dense, times
        self._loss = LossMemory()
        self._norms: list[tuple[str, float]] | None = None

    def on_loss(self, loss: Any, *, final: bool) -> None:
        """A loss passes by."""
        self._loss.note(loss, final=final)

    def scale_rate(self, stream: int, rate: Any) -> Any:
        """The trial's factor."""
        return rate if self._turns.rate == 1.0 else scaled_rate(rate, self._turns.rate)

    def on_apply(self, stream: int, optimizer: Any, original: Any, grads: Any, variables: Any = None) -> Any:
        """The optimizer is called."""
        grads = list(grads)
        known = list(optimizer._trainable_variables if variables is None else variables)
        if not optimizer.built:
            optimizer.build(known)
        scale = float(optimizer.dynamic_scale.value if scales_loss(optimizer) else optimizer.loss_scale_factor or 1.0)
        pairs = [(grad, variable) for grad, variable in zip(grads, known, strict=True) if grad is not None]
        norms = [safe_norm(self._dense(grad)) for grad, _ in pairs]
        told = [(variable.path, float(norm) / scale) for (_, variable), norm in zip(pairs, norms, strict=True)]
        self._norms = [*(self._norms or []), *told]
        if not self._turns.update:
            return None
        if self._turns.clip_norm is not None and norms:
            factor = clip_factor(ops.stack(norms), self._turns.clip_norm, scale)
            grads = [None if grad is None else self._times(grad, factor) for grad in grads]
        return original(grads) if variables is None else original(grads, variables)

    def numbers(self, logs: Any) -> Numbers:
        """What was taken down."""
        loss = self._loss.value
        if loss is None and isinstance(logs, dict):
            loss = logs.get("loss")
        value = None if loss is None else float(ops.convert_to_numpy(ops.mean(ops.cast(loss, "float64"))))
        return Numbers(value, self._norms)


@dataclass
class Variances:
    """Running variances of a model's normalisation layers, to tell by which factor a step made them grow."""

    variables: list[Any] = field(default_factory=list)
    before: list[float] = field(default_factory=list)

    @classmethod
    def of(cls, model: Any) -> Variances:
        """As they are now."""
        variables = running_variances(model)
        return cls(variables, [_norm(variable) for variable in variables])

    def jump(self) -> float | None:
        """Largest growth since then; None without such layers."""
        pairs = zip(self.variables, self.before, strict=True)
        grown = [_norm(variable) / before if before > 0 else math.nan for variable, before in pairs]
        return max(grown, default=None)


def _norm(variable: Any) -> float:
    return float(np.linalg.norm(np.asarray(ops.convert_to_numpy(variable.value), np.float64)))
