"""How signals and gradients fare through the layers before the first update."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Sequence

from nan_callbacks.checkup.advice import ERROR, WARNING, notice, share
from nan_callbacks.checkup.facts import LayerFacts
from nan_callbacks.checkup.notice import Notice

GROWTH = 100.0
"""Factor by which the signal may grow through all hidden layers. Kept scale gives 1, He's a few; 10 layers of twice the
usual scale give 1000."""

SHRINKAGE = 1e-3
"""Factor to which it may shrink: ten layers of torch's default scale, too small for rectifiers, come to 1e-3."""

VANISHING = 1e-5
"""Gradient of the first layer's output over that of the last hidden one's: float32 updates of the first layers are
then below the rounding of what the last ones get. Five layers of tanh come to 0.1."""

STEEP = 5.0
"""Factor per layer that no usual scheme comes near; He's gives 1.4."""

LOUDER, QUIETER = 3.0, 20.0
"""Factors between what a layer returns and what the next one receives: rectifiers and dropout leave half to twice of
the spread, bounded activations one at most, pooling over a whole picture a twentieth. Beyond that it is another signal,
such as the other features in a coupling layer of a flow."""

ROUNDING = 1e-5
"""Standard deviation over root mean square below which inputs differ by rounding: a hundred times float32's."""

FEWEST_LAYERS = 2
EXPLODING = 1e4
SATURATED = 0.5
DEAD = 0.75
"""Share of a layer's units that are zero for a whole batch. Of 64 samples a healthy unit sees some on its side."""


def examine_initialisation(layers: tuple[LayerFacts, ...]) -> Iterator[Notice]:
    """Every notice about the start; the caller leaves resumed runs out."""
    weighted = [layer for layer in layers if layer.has_weights]
    hidden = [layer for layer in weighted if not layer.is_output]
    yield from _symmetric(hidden)
    yield from _signal(layers, hidden)
    yield from _saturated(layers)
    yield from _dead(layers)
    yield from _gradients(hidden, [layer for layer in weighted if layer.is_output])


def _symmetric(hidden: Sequence[LayerFacts]) -> Iterator[Notice]:
    stuck = [
        layer
        for layer in hidden
        if layer.trainable and (layer.weights_all_zero or layer.weights_all_equal) and layer.gradients_all_equal
    ]
    if stuck:
        what = "zero" if all(layer.weights_all_zero for layer in stuck) else "equal"
        yield notice(
            "ACT305", "symmetric", ERROR, _names(stuck),
            f"All weights of {len(stuck)} hidden layer{'s' if len(stuck) > 1 else ''} are {what}, and so are the "
            "gradients of their units.",
        )  # fmt: skip


def _names(layers: Sequence[LayerFacts]) -> str:
    names = [layer.name for layer in layers]
    return ", ".join(names[:3]) + (" …" if len(names) > 3 else "")


def _signal(layers: Sequence[LayerFacts], hidden: Sequence[LayerFacts]) -> Iterator[Notice]:
    receiving = [layer for layer in hidden if layer.in_std and layer.in_std > ROUNDING * layer.in_level]
    known = [layer for layer in receiving if layer.out_std is not None and not layer.weights_all_zero]
    for part in _unnormalised_parts(layers, known):
        start, end = part[0].in_std or 1.0, part[-1].out_std or 0.0
        each = _growth_per_layer(layers, part)
        if SHRINKAGE <= end / start <= GROWTH and each < STEEP:
            continue
        plural = "s" if len(part) > 1 else ""
        told = (
            f"From a standard deviation of {start:.3g} the signal {'grows' if end > start else 'shrinks'} to {end:.3g}"
        )
        if each >= STEEP and SHRINKAGE <= end / start <= GROWTH:  # bounded activations hide what the weights do
            told = f"The weights multiply the signal by {each:.2g} a layer"
        scales = [layer.weight_scale for layer in part if layer.weight_scale is not None]
        usual = ""
        if scales:
            usual = f" Its weights times sqrt(fan-in) have a scale of {min(scales):.2g} to {max(scales):.2g}; "
            usual += "1 (LeCun, Glorot) to 1.4 (He) keeps a signal's size."
        yield notice("ACT304", "signal", WARNING, _names(part), f"{told} within {len(part)} layer{plural}.{usual}")
        return


def _growth_per_layer(layers: Sequence[LayerFacts], part: Sequence[LayerFacts]) -> float:
    """Geometric mean of the layers' factors; of one that ends in its own saturated activation the weights' scale."""
    factors = []
    for layer in part:
        if (layer.saturated_share or 0.0) > SATURATED and layer.weight_scale:
            factors.append(layer.weight_scale)
        elif layer.in_std and layer.out_std:
            factors.append(max(layer.out_std / layer.in_std, sys.float_info.min))  # of denormals it is 0
    if len(factors) < FEWEST_LAYERS:
        return 1.0
    return math.exp(sum(map(math.log, factors)) / len(factors))


def _unnormalised_parts(layers: Sequence[LayerFacts], known: Sequence[LayerFacts]) -> Iterator[list[LayerFacts]]:
    """Runs of layers with weights between normalisations, which set the scale anew."""
    chosen = {id(layer) for layer in known}
    part: list[LayerFacts] = []
    for layer in layers:
        if layer.is_normalisation:
            part = part[:-1]  # what the last of them returns is normalised
            if part:
                yield part
            part = []
        elif id(layer) in chosen:
            if part and not _follows(layer, part[-1]):
                yield part
                part = []
            part = [*part, layer]
    if part:
        yield part


def _follows(layer: LayerFacts, before: LayerFacts) -> bool:
    """Whether a layer may have received what the one before returned, through activations and pooling."""
    received, returned = layer.in_std or 0.0, before.out_std or 0.0
    return received <= LOUDER * returned and received >= min(returned, 1.0) / QUIETER


def _saturated(layers: Sequence[LayerFacts]) -> Iterator[Notice]:
    told = "of the outputs of {} ({}) are within 1 % of a bound before the first step."
    yield from _idle("ACT302", [(layer, layer.saturated_share or 0.0) for layer in layers], SATURATED, told)


def _dead(layers: Sequence[LayerFacts]) -> Iterator[Notice]:
    told = "of the units of {} ({}) are zero for every row of the batch before the first step."
    yield from _idle("ACT303", [(layer, layer.dead_share or 0.0) for layer in layers], DEAD, told)


def _idle(code: str, shares: Sequence[tuple[LayerFacts, float]], limit: float, told: str) -> Iterator[Notice]:
    """A notice about hidden layers of which too large a share passes no gradient on."""
    idle = [(layer, part) for layer, part in shares if part > limit and not layer.is_output]
    if idle:
        worst, part = max(idle, key=lambda pair: pair[1])
        evidence = f"{share(part)} {told.format(worst.name, worst.kind)}"
        yield notice(code, "at_start", WARNING, _names([layer for layer, _ in idle]), evidence)


def _gradients(hidden: Sequence[LayerFacts], outputs: Sequence[LayerFacts]) -> Iterator[Notice]:
    trained = [layer for layer in hidden if layer.grad_out_std is not None and layer.trainable]
    known = [layer for layer, after in zip(trained, [*trained, None][1:], strict=True) if not _waits(layer, after)]
    if len(known) < 2 or not known[-1].grad_out_std:
        return
    first, last = known[0], known[-1]
    ratio = (first.grad_out_std or 0.0) / (last.grad_out_std or 1.0)
    if ratio < VANISHING and not first.weights_all_zero:
        yield notice(
            "GRAD202", "at_start", WARNING, first.name,
            f"The gradient at {first.name} is {ratio:.2g} of that at {last.name}: the first of {len(known)} layers "
            "hardly learn.",
        )  # fmt: skip
    # A branch that begins at next to nothing, as with LayerScale, has next to no gradient: nothing has grown.
    elif ratio > EXPLODING and all(_grew(layer, first) for layer in outputs):
        yield notice(
            "GRAD203", "at_start", WARNING, first.name,
            f"The gradient at {first.name} is {ratio:.2g} times that at {last.name}, {len(known)} layers further on.",
        )  # fmt: skip


def _waits(layer: LayerFacts, after: LayerFacts | None) -> bool:
    """Whether a layer has no gradient until the first update of the one behind it, which is nothing but zeros.

    So adapters of low rank begin (Hu et al. 2021, "LoRA", section 4.1).
    """
    return not layer.grad_out_std and after is not None and after.weights_all_zero and bool(after.grad_out_std)


def _grew(last: LayerFacts, first: LayerFacts) -> bool:
    """Whether the gradient is larger at the first layer than at an output, as far as that is known."""
    return last.grad_out_std is None or (first.grad_out_std or 0.0) > math.sqrt(EXPLODING) * last.grad_out_std
