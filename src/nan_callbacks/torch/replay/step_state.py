"""Loss and gradients of a traced step, and what they say."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from nan_callbacks.diagnosis.origin import ReplayResult
from nan_callbacks.torch.replay.events import Event, merged
from nan_callbacks.torch.replay.taint import Taint
from nan_callbacks.torch.replay.tracer import Tracer
from nan_callbacks.torch.replay.verdict import Verdict

_REENTRANT = "CheckpointFunctionBackward"
"""Node of a reentrant checkpoint, which refuses ``autograd.grad``."""


class StepState:
    """What came out of the step so far.

    Args:
        parameters: By name.
        taint: Knows whose NaN or Inf a tensor holds.
    """

    def __init__(self, parameters: Mapping[str, Tensor], taint: Taint) -> None:
        self._parameters, self._taint = parameters, taint
        self.losses: list[float] = []
        self.loss_events: list[Event] = []
        self.gradient_events: dict[str, list[Event]] = {}
        """By the parameter's name; of non-finite gradients only."""
        self.parameter_events: list[Event] = []
        self.non_finite_gradients: tuple[str, ...] = ()
        self.grad_norm: float | None = None
        self.error: Exception | None = None
        self.out_of_time = False
        self.has_gradients = False

    def see_loss(self, loss: Tensor) -> None:
        """A loss that is about to be differentiated."""
        with torch._C._DisableTorchDispatch():
            total = loss.detach().sum()
            self.losses.append(float(total))
            if not math.isfinite(self.losses[-1]):
                self.loss_events = merged([self.loss_events, self._taint.events_of(loss)])

    def differentiate(self, loss: Tensor) -> None:
        """Gradients of all parameters, without touching ``p.grad`` where that is possible."""
        names = [name for name, parameter in self._parameters.items() if parameter.requires_grad]
        targets = [self._parameters[name] for name in names]
        if not loss.requires_grad:
            torch.autograd.backward(loss)  # raises what ended the run, if this ended it
        if not targets:
            return
        loss = loss if loss.dim() == 0 else loss.sum()
        seed = torch.ones_like(loss)
        self._taint.mark_gradient(seed)
        self.has_gradients = True
        if _has_reentrant_checkpoint(loss):
            torch.autograd.backward(loss, seed)
            found = [target.grad for target in targets]
        else:
            found = list(torch.autograd.grad(loss, targets, seed, allow_unused=True))
        with torch._C._DisableTorchDispatch():
            self._see_gradients({name: g for name, g in zip(names, found, strict=True) if g is not None})

    def _see_gradients(self, gradients: dict[str, Tensor]) -> None:
        norms = [_norm(gradient) for gradient in gradients.values()]
        self.grad_norm = math.sqrt(sum(norm * norm for norm in norms)) if all(map(math.isfinite, norms)) else math.nan
        if math.isfinite(self.grad_norm):
            return
        for name, gradient in gradients.items():
            events = self._taint.events_of(gradient)
            if events:
                self.gradient_events[name] = events
        self.non_finite_gradients = tuple(self.gradient_events)

    def see_accumulated(self) -> None:
        """After a step that differentiated by itself: what reached the gradients and the parameters."""
        self.gradient_events = self._taint.accumulated
        self.non_finite_gradients = tuple(name for name in self._parameters if name in self.gradient_events)
        self.has_gradients = True
        left = {name: p.grad for name, p in self._parameters.items() if p.grad is not None}
        if left and not self.gradient_events:
            self._see_gradients(left)
        self.parameter_events = merged([self._taint.events_of(parameter) for parameter in self._parameters.values()])


def judge(state: StepState, taint: Taint, verdict: Verdict, tracer: Tracer) -> ReplayResult:
    """What a finished (or broken off) replay says."""
    found = state.loss_events or merged(list(state.gradient_events.values())) or state.parameter_events
    loss_is_finite = not state.losses or all(map(math.isfinite, state.losses))
    bad_loss = next((loss for loss in state.losses if not math.isfinite(loss)), None)
    origins = verdict.origins(found, loss_is_finite=loss_is_finite and not state.parameter_events)
    if state.error is not None:
        origins = (*origins, *verdict.of_error(state.error))
    reproduced = not loss_is_finite or bool(state.gradient_events or state.parameter_events or state.error)
    reproduced = reproduced or (state.grad_norm is not None and not math.isfinite(state.grad_norm))
    return ReplayResult(
        origin=origins[0] if origins else None,
        reproduced=reproduced,
        loss=bad_loss if bad_loss is not None else state.losses[-1] if state.losses else None,
        grad_norm=state.grad_norm,
        non_finite_gradients=state.non_finite_gradients,
        others=origins[1:],
        note=_note(state, tracer, reproduced, bool(origins)),
    )


def _note(state: StepState, tracer: Tracer, reproduced: bool, has_origin: bool) -> str:
    said = []
    if state.out_of_time:
        said.append(f"The time for the replay was spent after {tracer.operations} operations.")
    elif not reproduced:
        what = "Loss and gradients were" if state.has_gradients else "The loss was"
        said.append(f"{what} finite in the replay: the failure was not reproduced." if state.losses else _NO_LOSS)
    if reproduced and not has_origin:
        said.append("The replay was non-finite as well, but no operation could be named.")
    if tracer.internal_error is not None:
        error = tracer.internal_error
        said.append(f"Some operations could not be followed ({type(error).__name__}: {error}).")
    return " ".join(said)


_NO_LOSS = "The step returned no loss and differentiated none: there was nothing to judge."


def _norm(gradient: Tensor) -> float:
    values = gradient.coalesce().values() if gradient.layout is torch.sparse_coo else gradient
    wide: Any = values if values.dtype is torch.float64 or values.dtype.is_complex else values.float()
    if not wide.numel():
        return 0.0
    # Squares of finite float32 values can overflow; where there is no float64 (mps) the norm is taken as it comes.
    wide = wide if wide.dtype.is_complex or wide.device.type == "mps" else wide.double()
    return float(torch.linalg.vector_norm(wide))


def _has_reentrant_checkpoint(loss: Tensor) -> bool:
    seen: set[Any] = set()
    waiting = [loss.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        if node.name() == _REENTRANT:
            return True
        seen.add(node)
        waiting += [following for following, _ in node.next_functions]
    return False
