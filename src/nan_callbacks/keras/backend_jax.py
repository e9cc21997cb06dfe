"""The guarded step on JAX: jitted or eager, on one device or under ``keras.distribution``."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import jax
import keras
import numpy as np
from jax import numpy as jnp

from nan_callbacks.core.config import SnapshotMemory
from nan_callbacks.core.room import belong_on_host
from nan_callbacks.keras import jax_measure as measuring
from nan_callbacks.keras.backend import anatomy_of
from nan_callbacks.keras.interception import Interception
from nan_callbacks.keras.jax_memory import bytes_on_accelerators, memory_of
from nan_callbacks.keras.jax_step import WatchedStep
from nan_callbacks.keras.model_parts import (
    global_seed,
    has_stock_step,
    learning_rate_variables,
    metrics_result,
    optimizers_of,
    seed_states,
)
from nan_callbacks.keras.readings import Layout, Reading, unpack
from nan_callbacks.keras.snapshot import Snapshot

METRICS = 3
"""Position of the metrics' variables in the state that JAX training hands around."""


class GuardedStep:
    """See :class:`nan_callbacks.keras.backend.Backend`.

    Args:
        model: A compiled model.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        self.optimizers = optimizers_of(model)[:1]  # Keras' JAX trainer threads the state of one optimizer only
        self.layouts: list[Layout] = []
        self.made_for: list[Any] = []
        self.slots: dict[int, Snapshot] = {}
        self.memory: SnapshotMemory = "auto"
        self.sees_gradients = True
        self.deferring = has_stock_step(model)
        self.user_step = model.train_step
        self.interception = Interception(model, self.optimizers, "stateless_apply")
        self._live: Any = None
        self._ran = False
        self._names: list[str] = []
        self._compiled: Any = None
        self._chooses_logs = False
        self._copy = jax.jit(lambda values: [jnp.copy(value) for value in values])
        self._norms = jax.jit(measuring.parameter_norms)

    @property
    def live(self) -> Any:
        """What ``fit`` hands around while the model's variables hold nothing; None outside of a train function."""
        return self._live

    def begin(self, state: Any, iterator: Any) -> Iterator[Any]:
        """Batches of one call."""
        self._live, self._ran = state, False
        return iter(iterator)

    def end(self, logs: Any) -> Any:
        """Hand the result to ``fit``."""
        state, self._live = self._live, None
        return logs, state

    def abandon(self) -> None:
        """Leave ``fit`` a state that it can attach."""
        # The buffers that `fit` holds were donated to the step; what it attaches to the model must be the new ones.
        if self._live is not None and self._ran:
            names = ("trainable_variables", "non_trainable_variables", "optimizer_variables", "metrics_variables")
            self.model._jax_state = dict(zip(names, self._live, strict=True))
            self.model._jax_state_synced = False
        self._live = None

    def prepare(self, batch: Any) -> None:
        """Get everything built, then compile."""
        self.interception = Interception(self.model, self.optimizers, "stateless_apply")
        self._names = _paths(self.model.trainable_variables)
        self._compiled = self._compile()
        self.made_for = anatomy_of(self.model)

    @property
    def runs_ahead(self) -> bool:
        """JAX returns at once from a compiled step; the logs of one of Keras' own are chosen inside it."""
        return self._chooses_logs and self._is_compiled

    def run(self, batch: Any, limits: np.ndarray) -> tuple[Any, Callable[[], list[Reading]]]:
        """One guarded step."""
        try:
            logs, state, vector = self._compiled(self._live, limits, batch)
        except jax.errors.UnexpectedTracerError:
            if not self.sees_gradients:
                raise
            self.sees_gradients = False
            warnings.warn(
                "NaNGuard cannot see the gradients of this train_step; it judges by the size of the update instead.",
                stacklevel=2,
            )
            self._compiled = self._compile()
            logs, state, vector = self._compiled(self._live, limits, batch)
        self._live, self._ran = state, True
        return logs, lambda: unpack(self.layouts, np.asarray(vector))

    def run_plain(self, original: Callable[..., Any], batch: Any) -> Any:
        """One step of the model's own function."""
        logs, self._live = original(self._live, iter([batch]))
        self._ran = True
        return logs

    def result(self, logs: Any) -> Any:
        """The logs from the metrics as they are now."""
        if self._live is None:
            return metrics_result(self.model, logs)
        mapping = list(zip(self.model.metrics_variables, self._live[METRICS], strict=True))
        with keras.StatelessScope(state_mapping=mapping):
            return metrics_result(self.model, logs)

    @property
    def can_try(self) -> bool:
        """A compiled step takes its state as an argument."""
        return self._is_compiled

    @contextmanager
    def on_copies(self) -> Iterator[None]:
        """The copies are what the steps are given, and may give away."""
        live, ran = self._live, self._ran
        self._live = tuple(self._copy(group) for group in live)
        try:
            yield
        finally:
            self._live, self._ran = live, ran

    def capture(self, slot: int, epoch: int) -> None:
        """Copy the state into a slot."""
        groups, _ = self._state()
        sizes = bytes_on_accelerators([value for group in groups for value in group])
        if sizes and belong_on_host(self.memory, sizes, memory_of):
            values = [[np.array(value) for value in group] for group in groups]
        else:
            values = [self._copy(group) for group in groups]
        self.slots[slot] = Snapshot(epoch, values)

    def restore(self, slot: int, epoch: int, *, streams: bool) -> None:
        """Put a slot back."""
        snapshot = self.slots[slot]
        groups, variables = self._state()
        left = learning_rate_variables(self.optimizers) | (set() if streams else set(map(id, seed_states(self.model))))
        restored = []
        for index, (present, saved, owners) in enumerate(zip(groups, snapshot.values, variables, strict=True)):
            if index == METRICS and snapshot.epoch != epoch:
                restored.append(present)
                continue
            values = self._placed(saved, present)
            kept = [id(owner) in left for owner in owners]
            restored.append([now if keep else old for now, old, keep in zip(present, values, kept, strict=True)])
        self._set_state(restored, variables)

    def _placed(self, saved: list[Any], present: list[Any]) -> list[Any]:
        """Copies of saved values where the present ones are: the next step donates its buffers."""
        if any(isinstance(value, np.ndarray) for value in saved):  # they were kept in the host's memory
            return [jax.device_put(value, now.sharding) for value, now in zip(saved, present, strict=True)]
        return self._copy(saved)

    def streams(self) -> Any:
        """Seed generators by ``id`` of their states."""
        seeds, (groups, variables) = set(map(id, seed_states(self.model))), self._state()
        places = [(i, j) for i, owners in enumerate(variables) for j, each in enumerate(owners) if id(each) in seeds]
        copies = self._copy([groups[i][j] for i, j in places])  # the next step donates these buffers
        return {id(variables[i][j]): copy for (i, j), copy in zip(places, copies, strict=True)}

    def set_streams(self, streams: Any) -> None:
        """Put them back."""
        groups, variables = self._state()
        pairs = [zip(owners, values, strict=True) for owners, values in zip(variables, groups, strict=True)]
        self._set_state([[streams.get(id(owner), value) for owner, value in each] for each in pairs], variables)

    def parameter_norms(self) -> dict[str, float]:
        """Norm of each trainable variable."""
        if self._live is None:
            self.model.jax_state_sync()
            values = [variable.value for variable in self.model.trainable_variables]
        else:
            values = list(self._live[0])
        if not values:
            return {}
        norms = np.asarray(self._norms(values)).tolist()
        # Walking through the layers takes longer than the norms. The names matter where they will be read.
        if len(norms) != len(self._names) or not all(map(math.isfinite, norms)):
            self._names = _paths(self.model.trainable_variables)
        return dict(zip(self._names, norms, strict=True))

    def _state(self) -> tuple[list[list[Any]], list[list[Any]]]:
        """Values and their variables: the four groups of a JAX state, and the global seed."""
        model = self.model
        variables = [
            list(model.trainable_variables),
            list(model.non_trainable_variables),
            list(model.optimizer.variables) if model.optimizer is not None else [],
            list(model.metrics_variables),
        ]
        seeds = [variable for variable in global_seed() if all(variable is not each for each in variables[1])]
        if self._live is not None:
            groups = [list(group) for group in self._live]
        else:
            model.jax_state_sync()
            groups = [[variable.value for variable in group] for group in variables]
        return [*groups, [variable.value for variable in seeds]], [*variables, seeds]

    def _set_state(self, groups: list[list[Any]], variables: list[list[Any]]) -> None:
        """What :meth:`_state` returns, with other values."""
        if self._live is not None:
            self._live = tuple(groups[:4])
            self._ran = True  # no longer what `fit` holds: an error on the way out must hand it over
            groups, variables = groups[4:], variables[4:]
        for owners, values in zip(variables, groups, strict=True):
            for variable, value in zip(owners, values, strict=True):
                variable.assign(value)

    @property
    def _is_compiled(self) -> bool:
        return bool(self.model.jit_compile) and not self.model.run_eagerly

    def _compile(self) -> Any:
        if not self._is_compiled:
            return self._guarded_step

        # A function of its own each time: jax keeps traces by the identity of what it compiles.
        def step(state: Any, limits: Any, data: Any) -> Any:
            return self._guarded_step(state, limits, data)

        shardings = None
        if keras.distribution.distribution() is not None:
            # Of the state itself: the model's variables hold nothing while `fit` runs.
            shardings = (None, jax.tree.map(lambda value: value.sharding, tuple(self._live)), None)
        return jax.jit(step, donate_argnums=0, out_shardings=shardings)

    def _guarded_step(self, state: Any, limits: Any, data: Any) -> tuple[Any, Any, Any]:
        step = WatchedStep(self, limits)
        with self.interception.watching(step):
            logs, new = self.user_step(state, data)
            new, vector = step.finish(state, new)
        self.layouts = step.layouts
        return self._chosen_logs(step.admitted, logs, new[METRICS]), new, vector

    def _chosen_logs(self, admitted: Any, logs: Any, metrics: list[Any]) -> Any:
        """The logs of a step, or of the metrics that were kept if it is dropped: nobody waits for the verdict."""
        with keras.StatelessScope(state_mapping=list(zip(self.model.metrics_variables, metrics, strict=True))):
            kept = self.model.get_metrics_result() if self.deferring else None
        self._chooses_logs = isinstance(logs, dict) and _structure(kept) == _structure(logs)
        if kept is None or not self._chooses_logs:
            return logs
        return {name: jax.tree.map(partial(jnp.where, admitted), logs[name], kept[name]) for name in logs}


def _paths(variables: list[Any]) -> list[str]:
    return [variable.path for variable in variables]


def _structure(values: Any) -> Any:
    return jax.tree.structure(values)
