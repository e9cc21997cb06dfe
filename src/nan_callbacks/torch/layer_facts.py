"""What the layers of a recorded step do with signal and gradient."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from nan_callbacks.checkup.facts import LayerFacts
from nan_callbacks.core.gates import taken_together
from nan_callbacks.torch.activation_calls import BOUNDED, RECTIFIERS
from nan_callbacks.torch.activations import alive_units, saturated_share
from nan_callbacks.torch.call_kinds import NORMALISING, TABLES, ancestors, weight_of
from nan_callbacks.torch.gates import RECURRENT, notes_of
from nan_callbacks.torch.loss_calls import loss_calls, sides_of
from nan_callbacks.torch.recorder import Call, Recorder

ALIKE = 0.95
"""Cosine between the gradient of a unit and that of the mean unit from which they learn the same."""

MOST = 0.9
"""Share of such units."""


@torch.no_grad()
def layers_of(
    recorder: Recorder, module: nn.Module, gradients: Mapping[int, Tensor], loss: Tensor | None
) -> tuple[LayerFacts, ...]:
    """The layers in the order of the forward pass, each at its first call.

    Args:
        recorder: The recorded step.
        module: The module.
        gradients: Of parameters and of the layers' results, by ``id``.
        loss: What the step returned.
    """
    ends = _ends(recorder, loss)
    trained = {id(p) for p in module.parameters() if p.requires_grad}
    made: list[LayerFacts] = []
    seen: set[Any] = set()
    for call in recorder.calls:
        weight = weight_of(call)
        is_activation = call.name in BOUNDED or call.name in RECTIFIERS
        if call.result is None or not (weight is not None or call.name in NORMALISING or is_activation):
            continue
        name = call.module if weight is not None or call.name in NORMALISING else f"{call.module}.{call.name}"
        if (name, call.name) in seen or (weight is not None and id(weight) in seen):
            continue
        seen.add((name, call.name))
        seen.add(id(weight))
        is_output = id(call) in ends
        made.append(_layer(call, name.strip("."), len(made), weight, gradients, is_output, trained))
        made += _gates(call, len(made), is_output)
    return tuple(made)


def _gates(call: Call, depth: int, is_output: bool) -> list[LayerFacts]:
    """The gates inside of a recurrent layer, as activations of their own."""
    return [
        LayerFacts(
            name=f"{call.module}.{gate.path}".strip("."),
            kind=gate.activation,
            depth=depth + index,
            is_output=is_output,
            saturated_share=gate.saturated_share,
            dead_share=gate.dead_share,
        )
        for index, gate in enumerate(call.facts.get("gates", ()))
    ]


def _ends(recorder: Recorder, loss: Tensor | None) -> set[int]:
    """Calls between the last weights and the loss, the last weights among them."""
    starts = []
    for call in loss_calls(recorder):
        predicted = sides_of(recorder, call)[0]
        maker = recorder.maker(predicted)
        starts += [maker] if maker is not None else []
    last = None if loss is None else recorder.maker(loss)
    behind = list(ancestors([] if last is None else [last], _has_weights))
    if not starts:
        return {id(call) for call in behind}
    feeding = [parent for call in recorder.calls if _has_weights(call) for parent in call.parents.values()]
    hidden = {id(call) for call in ancestors(feeding, lambda _: False)}
    # Besides what a known loss is fed with, what is computed from it: a focal loss weights by a sigmoid of its logits.
    beside = {id(call) for call in behind if id(call) not in hidden and not _has_weights(call)}
    return beside | {id(call) for call in ancestors(starts, _has_weights)}


def _has_weights(call: Call) -> bool:
    return weight_of(call) is not None


def _layer(
    call: Call,
    name: str,
    depth: int,
    weight: Tensor | None,
    gradients: Mapping[int, Tensor],
    is_output: bool,
    trained: set[int],
) -> LayerFacts:
    result = call.result
    assert result is not None
    grad = gradients.get(id(result))
    multiplies = weight is not None and call.name not in TABLES
    shared: dict[str, Any] = {
        "name": name or call.name,
        "kind": call.module_type if weight is not None else call.name,
        "depth": depth,
        "is_output": is_output,
        "grad_out_std": None if grad is None else _rms(grad),
    }
    if weight is None:
        return LayerFacts(
            **shared,
            is_normalisation=call.name in NORMALISING,
            saturated_share=call.facts.get("saturated"),
            dead_share=call.facts.get("dead"),
        )
    weight_grad = gradients.get(id(weight))
    units = weight.reshape(weight.shape[0], -1)
    return LayerFacts(
        **shared,
        has_weights=multiplies,
        trainable=id(weight) in trained,
        in_std=call.facts.get("in_std"),
        in_level=call.facts.get("in_level", 0.0),
        out_std=call.facts.get("out_std"),
        weight_scale=float(weight.float().std(correction=0)) * math.sqrt(weight[0].numel()) if multiplies else None,
        weights_all_zero=not bool(weight.count_nonzero()),
        weights_all_equal=len(units) > 1 and bool((units == units[:1]).all()),
        gradients_all_equal=weight_grad is None or _all_alike(weight_grad),
    )


def _rms(tensor: Tensor) -> float:
    dense = tensor.coalesce().values() if tensor.layout is torch.sparse_coo else tensor
    values = dense.detach().double()
    return float(values.square().mean().sqrt()) if values.numel() else 0.0


def _all_alike(gradient: Tensor) -> bool:
    if gradient.layout is not torch.strided or len(gradient) < 2:
        return False
    units = gradient.reshape(len(gradient), -1).double()
    norms, mean = units.norm(dim=1), units.mean(0)
    if not norms.max() or not mean.norm():
        return not bool(norms.max())
    # Biases drawn at random leave equal weights a little apart: in size, hardly in direction.
    likeness = (units @ mean) / (norms.clamp_min(1e-300) * mean.norm())
    return bool(((likeness >= ALIKE) | (norms == 0)).double().mean() >= MOST)


@torch.no_grad()
def measure_activation(call: Call) -> None:
    """Take down which share of an activation's outputs is saturated, or of its units dead."""
    result = call.result
    if call.name in RECURRENT and not call.kwargs:
        seen = [gate for notes in notes_of(call.name, call.args, call.output) for gate in notes.observations()]
        call.facts["gates"] = taken_together(seen)
    if result is None or not result.is_floating_point() or not result.numel():
        return
    if call.name in BOUNDED:
        call.facts["saturated"] = saturated_share(result, call.name)
    elif call.name in RECTIFIERS and result.dim() > 1:
        call.facts["dead"] = float((~alive_units(result)).float().mean())
