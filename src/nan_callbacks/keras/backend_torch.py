"""The guarded step on torch: the model's own train function, with our hooks around the optimizer."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch

from nan_callbacks.core import Limits
from nan_callbacks.core.config import SnapshotMemory
from nan_callbacks.keras.interception import Interception, LossMemory, scaled_rate
from nan_callbacks.keras.model_parts import (
    leaf_optimizers,
    metrics_result,
    optimizers_of,
    running_variances,
    scales_loss,
    seed_states,
    state_of,
    unique,
)
from nan_callbacks.keras.readings import DRAWS, LR_SCALE, Reading, in_single
from nan_callbacks.keras.snapshot import Snapshot, VariableGroups, variable_groups
from nan_callbacks.keras.torch_state import BufferCopies, KeptState, random_streams, set_random_streams, torch_modules
from nan_callbacks.torch.forward_state import ForwardState
from nan_callbacks.torch.measure import measure, non_finite_tensors, parameter_norms
from nan_callbacks.torch.snapshot import copy_pairs
from nan_callbacks.torch.snapshot_home import SnapshotHome


class GuardedStep:
    """See :class:`nan_callbacks.keras.backend.Backend`.

    Args:
        model: A compiled model.
    """

    runs_ahead = False
    can_try = False  # nothing is compiled, so that the laboratory is as quick

    def __init__(self, model: Any) -> None:
        self.model = model
        self.optimizers = optimizers_of(model)
        self.made_for = None  # nothing is compiled: a new one costs nothing
        self.slots: dict[int, Snapshot] = {}
        self.memory: SnapshotMemory = "auto"
        self._home: SnapshotHome | None = None
        self.groups: VariableGroups | None = None
        self.kept = KeptState()
        self.buffers = ForwardState(tuple, parameters=False)
        """Of layers and torch modules, beside their variables."""
        self.variances: list[int] = []
        """Places of the running variances among the kept variables."""
        self.interception = Interception(model, self.optimizers, "apply")
        self.make_step: Callable[[GuardedStep, np.ndarray], _Step] = _Step
        self._train_function = model.train_function

    def begin(self, data: Any) -> Iterator[Any]:
        """Batches of one call."""
        return iter([data])

    def end(self, logs: Any) -> Any:
        """Hand the result to ``fit``."""
        return logs

    def abandon(self) -> None:
        """Nothing to do: the state lives in the model's variables."""

    def prepare(self, batch: Any) -> None:
        """Get everything built, then compile."""
        model = self.model
        self.interception = Interception(model, self.optimizers, "apply")
        self.groups = variable_groups(model, self.optimizers)
        state = unique([*state_of(model), *model.metrics_variables])
        self.kept = KeptState(state)
        self.buffers = ForwardState(lambda: torch_modules(model), parameters=False)
        index = {id(variable): i for i, variable in enumerate(state)}
        self.variances = [index[id(each)] for each in running_variances(model) if id(each) in index]

    def run(self, batch: Any, limits: np.ndarray) -> tuple[Any, Callable[[], list[Reading]]]:
        """One guarded step."""
        step = self.make_step(self, limits)
        with self.interception.watching(step):
            logs = self._train_function(batch)
        if step.readings and not all(reading.admitted for reading in step.readings):
            step.put_state_back()
        return logs, lambda: step.readings

    def run_plain(self, original: Callable[..., Any], batch: Any) -> Any:
        """One step of the model's own function."""
        return original(batch)

    def result(self, logs: Any) -> Any:
        """The logs from the metrics as they are now."""
        return metrics_result(self.model, logs)

    def capture(self, slot: int, epoch: int) -> None:
        """Copy the state into a slot."""
        assert self.groups is not None
        live = [variable.value.detach() for variable in self.groups.all]
        self._home = home = self._home or SnapshotHome(self.memory)
        home.look(live)
        kept = self.slots.get(slot)
        if kept is None:
            values = [home.copy_of(tensor) for tensor in live]
            self.slots[slot] = Snapshot(epoch, values, random_streams(), BufferCopies(self.model))
        else:
            copy_pairs(list(zip(kept.values, live, strict=True)))
            kept.epoch, kept.rng, kept.buffers = epoch, random_streams(), BufferCopies(self.model)
            self.buffers.look()
        for each in self.slots.values() if home.on_host else ():
            each.values = home.settled(each.values)

    def restore(self, slot: int, epoch: int, *, streams: bool) -> None:
        """Put a slot back."""
        assert self.groups is not None
        snapshot = self.slots[slot]
        same_epoch = snapshot.epoch == epoch
        live = [variable.value.detach() for variable in self.groups.all]
        wanted = self.groups.restored(same_epoch, leave=() if streams else seed_states(self.model))
        with torch.no_grad():
            copy_pairs([(to, kept) for to, kept, put in zip(live, snapshot.values, wanted, strict=True) if put])
        if snapshot.buffers is not None:
            snapshot.buffers.restore()
            self.buffers.refresh()
        if same_epoch and streams:  # the next epoch's order of the data is drawn from these streams
            set_random_streams(snapshot.rng)

    def streams(self) -> Any:
        """Seed generators and torch's global streams."""
        seeds = seed_states(self.model)
        return seeds, [variable.value.detach().clone() for variable in seeds], random_streams()

    def set_streams(self, streams: Any) -> None:
        """Put them back."""
        for variable, value in zip(*streams[:2], strict=True):
            variable.assign(value)
        set_random_streams(streams[2])

    def parameter_norms(self) -> dict[str, float]:
        """Norm of each trainable variable."""
        variables = [v for v in self.model.trainable_variables if v.value.is_floating_point()]
        tensors = [variable.value.detach() for variable in variables]
        if not tensors:
            return {}
        names = [variable.path for variable in variables]
        norms = dict(zip(names, torch.stack(parameter_norms(tensors)).tolist(), strict=True))
        if all(math.isfinite(norm) for norm in norms.values()):
            return norms
        # A float32 norm overflows at about 1e19 with finite elements.
        bad = set(non_finite_tensors(names, tensors))
        return {
            name: math.nan if name in bad else float(torch.linalg.vector_norm(tensor.double()))
            for name, tensor in zip(names, tensors, strict=True)
        }


class _Step:
    """One step while it runs."""

    def __init__(self, owner: GuardedStep, limits: np.ndarray) -> None:
        self.owner = owner
        self.limits: list[list[float]] = limits.tolist()
        self.loss = LossMemory()
        self.readings: list[Reading] = []
        self.ran: list[bool] = []
        owner.kept.capture()
        owner.buffers.capture()
        self.random = random_streams()

    def on_loss(self, loss: Any, *, final: bool) -> None:
        """A loss passes by."""
        # Detached: its graph must go when the step lets go of it.
        self.loss.note(loss.detach() if isinstance(loss, torch.Tensor) else loss, final=final)

    def scale_rate(self, stream: int, rate: Any) -> Any:
        """The learning rate with our scale on it."""
        scale = self.limits[stream][LR_SCALE]
        return rate if scale == 1.0 else scaled_rate(rate, scale)

    def on_apply(
        self, stream: int, optimizer: Any, original: Callable[..., Any], grads: Any, variables: Any = None
    ) -> Any:
        """The optimizer is called: measure, decide, select."""
        if torch.compiler.is_dynamo_compiling():  # asked while tracing only: `disable` costs time at every call
            return self._apply_untraced(stream, optimizer, original, grads, variables)
        return self._apply(stream, optimizer, original, grads, variables)

    def _apply(self, stream: int, optimizer: Any, original: Callable[..., Any], grads: Any, variables: Any) -> Any:
        grads = list(grads)
        variables = list(optimizer._trainable_variables if variables is None else variables)
        if not optimizer.built:
            optimizer.build(variables)
        scaler = scales_loss(optimizer)
        scale = float(optimizer.dynamic_scale.value) if scaler else float(optimizer.loss_scale_factor or 1.0)
        present = [grad for grad in grads if grad is not None]
        loss, kept, variances = self.loss.value, self.owner.kept, self.owner.variances
        measured = measure(
            present,
            loss=None if loss is None else torch.as_tensor(loss),
            beside=[values[index] for values in (kept.live, kept.before) for index in variances],
            inverse_scale=1.0 / scale,
        )
        # In float32 like the limits, which are rounded down for it: the gate and the core must say the same.
        grad_norm = None if measured.grad_norm is None else in_single(measured.grad_norm)
        jump = _growth(measured.norms_beside)
        admitted = self._limits(stream).admits(measured.loss, grad_norm, jump)
        overflow = grad_norm is not None and not math.isfinite(grad_norm)
        finite_loss = measured.loss is None or math.isfinite(measured.loss)
        run = admitted or (scaler and overflow and finite_loss and scale > 1.0)
        self.readings.append(
            Reading(
                stream=stream,
                optimizer_name=type(optimizer).__name__,
                loss=measured.loss,
                grad_norm=grad_norm,
                statistics_jump=jump,
                loss_scale=scale if scaler else None,
                learning_rate=_number(leaf_optimizers(optimizer)[0]._get_current_learning_rate()),
                admitted=admitted,
                non_finite_names=_paths(variables, grads, measured.non_finite),
            )
        )
        self.ran.append(run)
        return original(grads, variables) if run else None

    _apply_untraced = torch._dynamo.disable(_apply)

    def put_state_back(self) -> None:
        """Undo what a dropped step wrote besides the weights: statistics, metrics; random streams if they go back."""
        partly = any(self.ran)  # another update of this step went through, or the scaler took over
        used = self.limits[0][DRAWS] > 0.5
        leave = seed_states(self.owner.model) if used else ()
        self.owner.kept.restore(only_non_finite=partly, leave=leave)
        self.owner.buffers.restore(only_non_finite=partly)
        if not partly and not used:
            set_random_streams(self.random)

    def _limits(self, stream: int) -> Limits:
        loss, grad_norm, jump, admit_loss, admit_gradients, closed, *_ = self.limits[stream]
        return Limits(loss, grad_norm, jump, admit_loss > 0.5, admit_gradients > 0.5, closed > 0.5)


def _paths(variables: Sequence[Any], grads: Sequence[Any], places: Sequence[int]) -> tuple[str, ...]:
    """Paths of some of the variables that have a gradient."""
    if not places:
        return ()
    present = [variable for variable, grad in zip(variables, grads, strict=True) if grad is not None]
    return tuple(present[place].path for place in places)


def _growth(norms: Sequence[float]) -> float | None:
    """Largest growth factor of some tensors, from their norms after and then before the step, in float32."""
    if not norms:
        return None
    half = len(norms) // 2
    grown = [_quotient(after, before) for after, before in zip(norms[:half], norms[half:], strict=True)]
    return math.nan if any(each != each for each in grown) else in_single(max(grown))


def _quotient(after: float, before: float) -> float:
    if before == 0.0:
        return math.inf if after > 0.0 else math.nan
    return after / before


def _number(rate: Any) -> float:
    return float(getattr(rate, "value", rate))
