"""The hazard scan of a Keras model: one traced step, on whatever backend is active."""

from __future__ import annotations

from typing import Any

import keras

from nan_callbacks.checkup.facts import Hazard
from nan_callbacks.keras.hazard_trace import HazardTrace
from nan_callbacks.keras.lab import KerasLab


def hazards_of(lab: KerasLab, budget_seconds: float, *, sound: bool) -> tuple[Hazard, ...]:
    """Operations of the user's own code that are one unlucky batch from failing.

    Args:
        lab: The first step, held still.
        budget_seconds: Time after which the scan gives up, with what it has.
        sound: Whether all gradients of the step are finite: then something masks elements outside of a domain.
    """
    found = _on_torch(lab) if keras.backend.backend() == "torch" else _traced(lab, budget_seconds)
    return tuple(each for each in found if not (sound and each.kind == "unguarded_gradient"))


def _traced(lab: KerasLab, budget_seconds: float) -> tuple[Hazard, ...]:
    traces: list[HazardTrace] = []

    def make_trace(*args: Any) -> HazardTrace:
        traces.append(HazardTrace(*args))
        # A compiled JAX step holds its operations in an order of its own.
        traces[-1].ends_with_the_forward_pass = keras.backend.backend() == "tensorflow"
        return traces[-1]

    lab.replay(budget_seconds, make_trace=make_trace)
    return tuple(hazard for trace in traces for hazard in trace.hazards)


def _on_torch(lab: KerasLab) -> tuple[Hazard, ...]:
    from nan_callbacks.torch.checkup_facts import hazards_of as hazards_of_calls
    from nan_callbacks.torch.hazard_calls import measure
    from nan_callbacks.torch.recorder import Recorder

    model = lab.model
    recorder = Recorder(model, _forward.__code__, measure)
    lab.held_still_for(lambda: _forward(lab, recorder))
    return tuple(hazard for hazard in hazards_of_calls(recorder) if hazard.source is not None)


def _forward(lab: KerasLab, recorder: Any) -> None:
    """The forward pass and the loss, without an update."""
    model = lab.model
    x, y, weight = keras.utils.unpack_x_y_sample_weight(lab.failed_batch)
    x, y, weight = keras.tree.map_structure(
        lambda part: part if part is None else keras.ops.convert_to_tensor(part), (x, y, weight)
    )
    training = {"training": True} if model._call_has_training_arg else {}
    try:
        with recorder:
            model.compute_loss(x=x, y=y, y_pred=model(x, **training), sample_weight=weight)
    except Exception:  # what was seen up to the error is seen; the step will raise it, too
        return
