"""The guarded step on TensorFlow: graph, eager and XLA, alone or under a distribution strategy."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from nan_callbacks.core.config import SnapshotMemory
from nan_callbacks.core.room import belong_on_host
from nan_callbacks.keras import tensorflow_measure as measuring
from nan_callbacks.keras.backend import anatomy_of
from nan_callbacks.keras.building import build, is_idle
from nan_callbacks.keras.gate import admits
from nan_callbacks.keras.interception import Interception, LossMemory, scaled_rate
from nan_callbacks.keras.model_parts import (
    global_seed,
    has_stock_step,
    leaf_optimizers,
    metrics_result,
    optimizers_of,
    running_variances,
    scales_loss,
    seed_states,
    state_of,
)
from nan_callbacks.keras.plain_variables import plain_variables
from nan_callbacks.keras.readings import COLUMNS, DRAWS, LR_SCALE, Layout, Reading, unpack
from nan_callbacks.keras.replay_tensorflow import variables_kept
from nan_callbacks.keras.snapshot import Snapshot, VariableGroups, variable_groups
from nan_callbacks.keras.tensorflow_building import build_in_step
from nan_callbacks.keras.tensorflow_memory import bytes_on_accelerators

OWN_STREAMS = re.compile(r"Random|TruncatedNormal|ParameterizedTruncatedNormal|Multinomial|StatefulRandom")
"""Beginnings of the names of operations that draw from streams of their own; Keras' own layers use stateless ones."""


class GuardedStep:
    """See :class:`nan_callbacks.keras.backend.Backend`.

    Args:
        model: A compiled model.
    """

    runs_ahead = False  # Keras itself reads the logs of every step on TensorFlow

    def __init__(self, model: Any) -> None:
        self.model = model
        self.optimizers = optimizers_of(model)
        self.replicas = model.distribute_strategy.num_replicas_in_sync
        self.layouts: list[Layout] = []
        self.made_for: list[Any] = []
        self.slots: dict[int, Snapshot] = {}
        self.memory: SnapshotMemory = "auto"
        self.groups: VariableGroups | None = None
        self.interception = Interception(model, self.optimizers, "apply")
        self.user_step = model.train_step
        self._compiled: Any = None
        self._limits: tuple[Any, Any] = (None, None)
        self._weights: list[Any] = []
        self._names: list[str] = []
        self._norms: Any = None
        self._read_all: Any = None
        self._draws_by_itself = False
        self._spec: Any = None
        """Of the data: shapes and dtypes of their batches."""

    def begin(self, iterator: Any) -> Iterator[Any]:
        """Batches of one call."""
        spec = getattr(iterator, "element_spec", None)
        batches = iter(iterator)
        if any(isinstance(each, tf.OptionalSpec) for each in tf.nest.flatten(spec)):
            spec, batches = None, map(_without_optionals, iterator)  # their structure differs from batch to batch
        if self._compiled is not None and spec is not self._spec and spec != self._spec:
            self._spec = spec
            self._compiled = self._compile()
        self._spec = spec
        return batches

    def end(self, logs: Any) -> Any:
        """Hand the result to ``fit``."""
        return logs

    def abandon(self) -> None:
        """Nothing to do: the state lives in the model's variables."""

    def prepare(self, batch: Any) -> None:
        """Get everything built, then compile."""
        model = self.model
        if model.built and has_stock_step(model) and model.trainable_variables:
            self._build_optimizer()  # in time for what follows to find it built
        unbuilt = not model.built or any(not optimizer.built for optimizer in self.optimizers)
        if model._distribute_strategy is None:
            try:
                build(model, batch)
            except Exception:  # of what was built already, a rollback leaves metrics alone that do not exist yet
                if unbuilt:
                    build_in_step(model, batch)
        if not is_idle(model):
            self._build_optimizer()
        self.interception = Interception(model, self.optimizers, "apply")
        self.groups = variable_groups(model, self.optimizers, plain_variables(model))
        self._weights = list(model.trainable_variables)
        self._names = [variable.path for variable in self._weights]
        self._norms, self._read_all = tf.function(self._variable_norms), tf.function(self._values)
        if self.replicas == 1:  # traced once for good: functions of one model after the other look like retracing
            self._norms, self._read_all = (each.get_concrete_function() for each in (self._norms, self._read_all))
        self.made_for = anatomy_of(model)  # if the step itself builds more, the next fit prepares anew
        self._compiled = self._compile()

    def _build_optimizer(self) -> None:
        """In the scope in which ``apply`` would do it, which is a part of its variables' paths."""
        optimizer = self.model.optimizer
        if optimizer is not None and not optimizer.built and any(optimizer is each for each in self.optimizers):
            with keras.name_scope(optimizer.name, caller=optimizer):
                optimizer.build(self.model.trainable_variables)

    def run(self, batch: Any, limits: np.ndarray) -> tuple[Any, Callable[[], list[Reading]]]:
        """One guarded step."""
        if self._limits[0] is not limits:
            self._limits = limits, tf.constant(limits)
        logs, vector = self._compiled([(batch, self._limits[1])])
        return logs, lambda: unpack(self.layouts, vector.numpy())

    def run_plain(self, original: Callable[..., Any], batch: Any) -> Any:
        """One step of the model's own function."""
        return original([batch])

    def result(self, logs: Any) -> Any:
        """The logs from the metrics as they are now."""
        return metrics_result(self.model, logs)

    @property
    def can_try(self) -> bool:
        """A compiled step has no side effects but on variables; those that it would create could not be put back."""
        built = all(optimizer.built for optimizer in self.optimizers)
        return built and self.replicas == 1 and not self.model.run_eagerly

    @contextmanager
    def on_copies(self) -> Iterator[None]:
        """The variables are put back at the end, those of layers and of TensorFlow's generators as well."""
        before = {id(variable) for variable in global_seed()}
        try:
            with variables_kept(self.model):
                yield
        finally:
            if self._draws_by_itself:  # operations that count in the compiled function how often they have drawn
                self._compiled = self._compile()
            for state in global_seed():
                if id(state) not in before:  # made by the first step: a seed, and how often it was drawn from
                    state.assign([state[0], 0])
            for metric in self.model.metrics:  # some come into being with the first step; all of them are at zero
                metric.reset_state()

    def capture(self, slot: int, epoch: int) -> None:
        """Copy the state into a slot."""
        assert self.groups is not None
        sizes = bytes_on_accelerators(self.groups.all)
        if sizes and belong_on_host(self.memory, sizes, lambda _: None):  # TensorFlow tells no device's size
            values = [tf.identity(variable.value).numpy() for variable in self.groups.all]
        else:
            # One call for all of them; mirrored variables are read in the way that Keras reads them.
            values = self._read_all() if self.replicas == 1 else self._values()
        self.slots[slot] = Snapshot(epoch, list(values))

    def restore(self, slot: int, epoch: int, *, streams: bool) -> None:
        """Put a slot back."""
        assert self.groups is not None
        snapshot = self.slots[slot]
        wanted = self.groups.restored(snapshot.epoch == epoch, leave=() if streams else seed_states(self.model))
        for variable, value, put in zip(self.groups.all, snapshot.values, wanted, strict=True):
            if put:
                variable.value.assign(value)

    def streams(self) -> Any:
        """Seed generators; TensorFlow's own streams never go back."""
        return [(variable, tf.identity(variable.value)) for variable in seed_states(self.model)]

    def set_streams(self, streams: Any) -> None:
        """Put them back."""
        for variable, value in streams:
            variable.value.assign(value)

    def parameter_norms(self) -> dict[str, float]:
        """Norm of each trainable variable."""
        return dict(zip(self._names, self._norms().numpy().tolist(), strict=True))

    def _variable_norms(self) -> Any:
        weights = [variable.value for variable in self._weights]
        return measuring.parameter_norms(weights) if weights else tf.zeros([0])

    def _values(self) -> list[Any]:
        assert self.groups is not None
        return [tf.identity(variable.value) for variable in self.groups.all]

    def _compile(self) -> Any:
        """Let Keras compile our step the way the user asked it to compile theirs."""
        model, own = self.model, self.model.train_function
        previous = vars(model).get("train_step")
        vars(model)["train_step"] = self._guarded_step
        try:
            model.make_train_function(force=True)
            return self._for_all_batches(model.train_function)
        finally:
            model.train_function = own
            if previous is None:
                del vars(model)["train_step"]
            else:
                vars(model)["train_step"] = previous

    def _for_all_batches(self, step: Any) -> Any:
        """Traced with the shapes that the data declare, as Keras' own step is, not with those of the first batch.

        Keras weights the mean of an output's loss by the size of the batch only if it is known while tracing.
        """
        if self._spec is None or self.model.run_eagerly or self.replicas > 1:
            return step
        limits = tf.TensorSpec([max(len(self.optimizers), 1), COLUMNS], tf.float32)

        @tf.autograph.experimental.do_not_convert
        def one_step(batch: Any, limits: Any) -> Any:
            return step([(batch, limits)])

        traced = tf.function(one_step, input_signature=[self._spec, limits])
        return lambda bundles: traced(*bundles[0])

    def _guarded_step(self, bundle: Any) -> tuple[Any, Any]:
        data, limits = bundle
        step = _Step(self, limits)
        with self.interception.watching(step):
            logs = self.user_step(data)
        self.layouts = step.layouts
        self._draws_by_itself = _draws_by_itself()
        if not step.layouts:
            return logs, tf.zeros([0])
        step.put_state_back()
        return logs, tf.concat(step.vectors, 0)


class _Step:
    """One step while it is traced (or run eagerly), on one replica."""

    def __init__(self, owner: GuardedStep, limits: Any) -> None:
        self.owner = owner
        self.limits = limits
        self.loss = LossMemory()
        self.layouts: list[Layout] = []
        self.vectors: list[Any] = []
        self.admitted: list[Any] = []
        self.ran: list[Any] = []
        model = owner.model
        self.state = [*state_of(model), *plain_variables(model), *model.metrics_variables]
        self.before = [tf.identity(variable.value) for variable in self.state]
        variances = running_variances(model)
        known = {id(variable): value for variable, value in zip(self.state, self.before, strict=True)}
        self.variances = [(variable, known[id(variable)]) for variable in variances if id(variable) in known]

    def on_loss(self, loss: Any, *, final: bool) -> None:
        """A loss passes by."""
        self.loss.note(loss, final=final)

    def scale_rate(self, stream: int, rate: Any) -> Any:
        """The learning rate with our scale on it."""
        return scaled_rate(rate, self.limits[stream, LR_SCALE])

    def on_apply(
        self, stream: int, optimizer: Any, original: Callable[..., Any], grads: Any, variables: Any = None
    ) -> Any:
        """The optimizer is called: measure, decide, select."""
        grads = list(grads)
        variables = list(optimizer._trainable_variables if variables is None else variables)
        pairs = [(grad, variable) for grad, variable in zip(grads, variables, strict=True) if grad is not None]
        if not pairs:
            return original(grads, variables)
        if not optimizer.built:
            optimizer.build(variables)
        scaler = scales_loss(optimizer)
        scale = optimizer.dynamic_scale.value if scaler else tf.constant(optimizer.loss_scale_factor or 1.0, tf.float32)
        measured = [grad for grad, _ in pairs]
        if self.owner.replicas > 1:
            measured = measuring.summed(measured)
        norms, total, counts = measuring.gradients(measured, scale, xla=bool(self.owner.model.jit_compile))
        loss = None if self.loss.value is None else tf.reshape(tf.cast(self.loss.value, tf.float32), [])
        jump = measuring.growth(self.variances)
        if self.owner.replicas > 1:
            loss, total, jump, counts = measuring.agree(loss, total, jump, counts)
        admitted = admits(self.limits[stream], loss, total, jump)
        run = admitted
        if scaler:
            overflow = ~tf.math.is_finite(total)
            fine = True if loss is None else tf.math.is_finite(loss)
            run = admitted | (overflow & fine & (scale > 1.0))
            if self.owner.replicas > 1:
                grads = measuring.show_overflow(grads, overflow)
        self._note(stream, optimizer, pairs, [loss, total, jump, scale if scaler else None], admitted, norms, counts)
        self.ran.append(run)
        return self._apply_if(run, original, grads, variables)

    def put_state_back(self) -> None:
        """Undo what a dropped step wrote besides the weights: statistics, metrics, and seeds if they go back."""
        kept = tf.reduce_all(tf.stack(self.admitted))
        partly = len(self.admitted) > 1 or any(scales_loss(each) for each in self.owner.optimizers)
        any_ran = tf.reduce_any(tf.stack(self.ran))
        used, seeds = self.limits[0, DRAWS] > 0.5, {id(variable) for variable in seed_states(self.owner.model)}

        def select(keep_all: Any) -> None:
            for variable, before in zip(self.state, self.before, strict=True):
                value, keep = variable.value, keep_all | used if id(variable) in seeds else keep_all
                if partly:  # what is finite stays if another update of this step went through, or the scaler took over
                    finite = tf.reduce_all(tf.math.is_finite(value)) if value.dtype.is_floating else tf.constant(True)
                    keep = keep | (any_ran & finite)
                value.assign(tf.where(keep, value, before))

        def select_in_branch() -> Any:
            select(tf.constant(False))
            return tf.no_op()

        if self.owner.replicas == 1:
            tf.cond(kept, tf.no_op, select_in_branch)
        else:  # replicas may not assign inside a branch
            select(kept)

    def _note(
        self,
        stream: int,
        optimizer: Any,
        pairs: list[Any],
        numbers: list[Any],
        admitted: Any,
        norms: Any,
        counts: Any,
    ) -> None:
        loss, total, jump, loss_scale = numbers
        rate = leaf_optimizers(optimizer)[0]._get_current_learning_rate()
        head = [loss, total, jump, loss_scale, rate, admitted]
        head = [
            tf.constant(math.nan) if item is None else tf.cast(tf.convert_to_tensor(item), tf.float32) for item in head
        ]
        self.vectors += [tf.stack(head), norms, counts]
        self.admitted.append(admitted)
        names = tuple(variable.path for _, variable in pairs)
        self.layouts.append(
            Layout(stream, type(optimizer).__name__, names, loss is not None, jump is not None, loss_scale is not None)
        )

    def _apply_if(self, run: Any, original: Callable[..., Any], grads: list[Any], variables: list[Any]) -> None:
        def update() -> Any:
            original(grads, variables)
            return tf.no_op()

        if self.owner.replicas == 1 or tf.__internal__.distribute.strategy_supports_no_merge_call():
            tf.cond(run, update, tf.no_op)
            return

        # A branch whose body merges replicas must stand in the cross-replica context.
        def across(strategy: Any, grads: Any, variables: Any, run: Any) -> None:
            def update_all() -> Any:
                strategy.extended.call_for_each_replica(original, args=(grads, variables))
                return tf.no_op()

            tf.cond(strategy.experimental_local_results(run)[0], update_all, tf.no_op)

        tf.distribute.get_replica_context().merge_call(across, args=(grads, variables, run))


def _draws_by_itself() -> bool:
    """Whether the graph that is being made holds operations with random streams of their own."""
    if tf.executing_eagerly():
        return False
    graph = tf.compat.v1.get_default_graph().as_graph_def()
    nodes = [*graph.node, *(node for function in graph.library.function for node in function.node_def)]
    return any(OWN_STREAMS.match(node.op) for node in nodes)


def _without_optionals(batch: Any) -> Any:
    """A batch in which what may be missing is there or None, as Keras hands it to a train step."""

    def plain(part: Any) -> Any:
        if not isinstance(part, tf.experimental.Optional):
            return part
        return part.get_value() if part.has_value() else None

    return keras.tree.map_structure(plain, batch)
