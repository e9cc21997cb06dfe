"""The replay: a step runs once more under the tracer, and its result is judged."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from nan_callbacks.diagnosis.origin import ReplayResult
from nan_callbacks.torch.replay.batch_parts import batch_size
from nan_callbacks.torch.replay.known_tensors import KnownTensors
from nan_callbacks.torch.replay.left_alone import gradients, random_streams, run_eagerly, watched_backward
from nan_callbacks.torch.replay.step_state import StepState, judge
from nan_callbacks.torch.replay.taint import Taint
from nan_callbacks.torch.replay.tracer import OutOfTimeError, Tracer
from nan_callbacks.torch.replay.verdict import Verdict


def replay(
    step: Callable[[], Tensor | None],
    *,
    modules: Mapping[str, nn.Module],
    parameters: Mapping[str, Tensor],
    batch: Any = None,
    budget_seconds: float | None = None,
    whole_step: bool = False,
) -> ReplayResult:
    """Run a step again and find the first operation that made a NaN or an Inf out of finite operands.

    Nothing of it is left behind by the replay itself: gradients (``p.grad``), random streams, hooks and modes are as
    they were at the call, also if the step raises. What the *step* writes besides is the caller's to put back: buffers,
    metrics, and (with ``whole_step``) parameters and optimizer state.

    Args:
        step: Without arguments. Runs the forward pass on ``batch`` and returns the raw loss, shape []. The caller sets
            the random streams back before the call (or inside of it).
        modules: Root modules by name. Paths of modules and buffers begin with that name; ``""`` gives the names
            of ``named_modules()``.
        parameters: Parameters by name, for whose gradients the loss is differentiated.
        batch: What the step reads: a tensor or any nesting of mappings, sequences, dataclasses and objects.
        budget_seconds: The replay stops after this time and says so in ``note``; None: no limit.
        whole_step: The step itself calls ``backward`` (any number of times) and perhaps steps optimizers, as in manual
            optimisation; it may return None. All of it is traced; ``p.grad`` is put back afterwards. Otherwise
            the loss is differentiated by ``torch.autograd.grad``.

    Returns:
        What was found. An exception of the step is a result (``OriginKind.EXCEPTION``), never raised; only
        ``KeyboardInterrupt`` and its like pass through.
    """
    begun = time.perf_counter()
    deadline = None if budget_seconds is None else begun + budget_seconds
    known = KnownTensors(modules, parameters, batch)
    taint = Taint(known, batch_size(batch))
    tracer = Tracer(modules, taint, _run.__code__, deadline)
    tracer.records.begin(torch._C._autograd._get_sequence_nr() - 1)
    state = StepState(parameters, taint)
    trained = [parameter for parameter in parameters.values() if parameter.requires_grad]
    with random_streams(), gradients(trained, copies=whole_step), run_eagerly(), torch.enable_grad():
        _run(step, tracer, state, whole_step)
    result = judge(state, taint, Verdict(tracer, taint, known), tracer)
    return replace(result, operations=tracer.operations, seconds=time.perf_counter() - begun)


def _run(step: Callable[[], Tensor | None], tracer: Tracer, state: StepState, whole_step: bool) -> None:
    """Run the step under the tracer. This function's frame is where the search for source lines ends."""
    try:
        if whole_step:
            with watched_backward(state.see_loss), tracer:
                loss = step()
            if loss is not None and not state.losses:
                state.see_loss(loss)
            state.see_accumulated()
        else:
            with tracer:
                loss = step()
                if loss is not None:
                    state.see_loss(loss)
                    state.differentiate(loss)
    except OutOfTimeError:
        state.out_of_time = True
    except Exception as error:
        state.error = error
