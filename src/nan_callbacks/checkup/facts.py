"""What an adapter finds out before the first step: arrays, names and numbers, no tensors of a framework."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nan_callbacks.core.tensor_summary import TensorSummary
from nan_callbacks.diagnosis.known_issues import Environment
from nan_callbacks.diagnosis.origin import SourceLine

Array = NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class Lookup:
    """One table, and what it was asked for."""

    table: str
    """Path of the layer."""
    rows: int
    """Of the table."""
    values: Array
    """The indices it received: in all rows that were read where it receives a known part of the input, else in one
    batch."""


@dataclass(frozen=True, kw_only=True)
class InputFacts:
    """One tensor of the batch that the model computes with, in all rows that were read."""

    name: str
    """Where it is in the batch: ``input``, ``batch[0]``, ``batch['pixels']``."""
    values: Array
    """Rows (samples) along the first axis, as the data hold them."""
    use: str = "unknown"
    """How the model first uses it: ``numbers`` (it is multiplied by weights, or convolved), ``indices`` (it looks rows
    of a table up), ``mask``, ``target`` (what layers have returned is compared with it),
    ``unknown`` (not seen to reach a layer)."""
    first_layer: str = ""
    """Path of the first layer with weights that it reaches; empty if unknown."""
    received: Array | None = None
    """What that layer receives for it, over one batch: after rescaling or normalisation inside the model. None if not
    seen."""
    normalised_after: bool = False
    """Whether what that layer returns is normalised at once, so that the scale of all inputs does not matter."""
    channel_axis: int = -1
    """Axis of `values` along which features or channels lie."""
    lookups: tuple[Lookup, ...] = ()
    """The tables that the input reaches, as it is, in part, or changed."""
    row_numbers: Array | None = None
    """What the data set counts the rows of `values` as; None: as they lie there."""
    batch_has_gaps: bool = False
    """Whether the first batch's own part of it holds NaN or Inf."""


@dataclass(frozen=True, kw_only=True)
class LossFacts:
    """One loss term as it was computed on one batch."""

    kind: str
    """Neutral name: ``cross_entropy`` (targets are class indices), ``soft_cross_entropy`` (targets are one
    probability per class), ``binary_cross_entropy``, ``squared_error``, ``absolute_error`` (Huber and smooth L1 as
    well), ``poisson``, ``kl_divergence``, ``hinge``, ``cosine``, ``difference`` (written out by
    hand), ``own`` (the user's, unseen; targets in another shape than the outputs make a difference to it),
    ``unknown``."""
    from_logits: bool | None = None
    """Whether it applies the softmax or the sigmoid itself; None where that makes no sense. A loss that takes
    *log-probabilities* (torch's ``nll_loss``, ``kl_div``) has False and `takes_log` True."""
    takes_log: bool = False
    """Whether it expects logarithms of probabilities."""
    predictions: Array = field(default_factory=lambda: np.empty(0))
    """What the model handed to the loss."""
    targets: Array = field(default_factory=lambda: np.empty(0))
    """What it was compared with, before any cast by the loss; rows along the first axis."""
    all_targets: Array | None = None
    """The targets of all rows that were read, if they can be told from the batch; None: only of one batch."""
    class_axis: int | None = None
    """Axis of `predictions` along which classes lie; None without classes."""
    ignore_index: int | None = None
    """Target that the loss leaves out; None if there is none."""
    activation: str = ""
    """What made the predictions, last first applied: ``softmax``, ``log_softmax``, ``sigmoid``, ``log_sigmoid``,
    ``tanh``, ``relu``, ``softplus``, ``exp``, ``log`` (of something), ``linear`` (a layer without activation);
    empty: unknown."""
    name: str = ""
    """How it is called where it was computed: ``cross_entropy``, ``loss of output 'a'``."""
    source: SourceLine | None = None
    """The user's line that computed it; None if unknown."""
    of_distribution: bool = False
    """Whether it is a term of a distribution's likelihood: one distribution may serve many samples, or many
    distributions one sample."""
    row_numbers: Array | None = None
    """What the data set counts the rows of `all_targets` as; None: as they lie there."""

    @property
    def classes(self) -> int:
        """Classes that the predictions tell apart; 1 without any."""
        axis = self.class_axis
        return self.predictions.shape[axis] if axis is not None and self.predictions.ndim else 1


@dataclass(frozen=True, kw_only=True)
class LayerFacts:
    """One layer at the first step, before any update."""

    name: str
    kind: str
    """Class of the layer, or the activation's name."""
    depth: int
    """Position in the forward pass, from 0."""
    has_weights: bool = False
    """Whether it multiplies its input by a matrix or convolves it."""
    is_normalisation: bool = False
    is_output: bool = False
    """Whether the loss receives what it returns, directly or through an activation."""
    trainable: bool = True
    """False if all its weights are frozen."""
    in_std: float | None = None
    """Standard deviation (root mean square for weights without bias) of what it receives over the batch; of several
    things that it receives, such as sequences and a state, the largest one."""
    in_level: float = 0.0
    """Root mean square of the same; 0 if unknown."""
    out_std: float | None = None
    """Standard deviation of what it returns over the batch."""
    grad_out_std: float | None = None
    """Root mean square of the gradient of the loss with regard to its output."""
    weight_scale: float | None = None
    """Standard deviation of the weights times the square root of the fan-in: about 1 (LeCun, Glorot) to 1.4 (He)."""
    weights_all_zero: bool = False
    weights_all_equal: bool = False
    """Whether all units of the layer begin with the same weights."""
    gradients_all_equal: bool = False
    """Whether all units get the same gradient, so that equal weights stay equal."""
    saturated_share: float | None = None
    """Of a sigmoid or tanh, or of the gates of a recurrent layer: share of the outputs within 1 % of a bound."""
    dead_share: float | None = None
    """Of a rectifier: share of the units that are zero for the whole batch."""


@dataclass(frozen=True, kw_only=True)
class RateFacts:
    """What a few virtual steps on copies showed."""

    learning_rate: float
    """The rate with which training is about to begin (of a warm-up: of its end, if that can be told)."""
    factors: tuple[float, ...] = ()
    """Factors on the rate that were tried, in the order of the trials."""
    losses: tuple[tuple[float, ...], ...] = ()
    """Of each trial: the loss of the same batch before and after each virtual step."""
    optimizer: str = ""


@dataclass(frozen=True, kw_only=True)
class Hazard:
    """One operation of the traced step that may fail with an unlucky batch."""

    operation: str
    """Neutral name: :mod:`nan_callbacks.diagnosis.operations` lists them."""
    kind: str
    """``log_of_probability``, ``near_zero`` (an operand of log, sqrt, rsqrt, division whose minimum is near zero
    without an epsilon), ``near_overflow`` (an operand of exp and the like), ``unguarded_gradient`` (``where`` chooses
    the value and not the gradient), ``wrapped`` (whole numbers that have left the range of their type),
    ``half_precision`` (within a few bits of the largest number of its dtype)."""
    module: str = ""
    source: SourceLine | None = None
    operand: TensorSummary | None = None
    headroom_bits: float | None = None
    """Binary orders of magnitude between the operand and the edge; None if it does not apply."""
    before: str = ""
    """Neutral name of the operation that made the operand, such as ``softmax``; empty if unknown."""


@dataclass(frozen=True, kw_only=True)
class CheckupFacts:
    """Everything together. A part that an adapter could not look at is empty."""

    framework: str = ""
    """``lightning``, ``torch`` or ``keras``: in whose words remedies are given."""
    inputs: tuple[InputFacts, ...] = ()
    losses: tuple[LossFacts, ...] = ()
    layers: tuple[LayerFacts, ...] = ()
    """In the order of the forward pass."""
    rate: RateFacts | None = None
    hazards: tuple[Hazard, ...] = ()
    environment: Environment = field(default_factory=Environment)
    rows_read: int = 0
    """Rows that `InputFacts.values` come from."""
    row_numbers: Array | None = None
    """What the data set counts them as, if they were read from it at a stride; None: as they were read."""
    sound: bool = False
    """Whether the gradients of the first batch are known to be finite."""
    resumed: bool = False
    """Whether the weights come from a checkpoint or another training: then the start is not judged as a start."""
    notes: tuple[str, ...] = ()
    """What could not be looked at, and why."""


def with_row_numbers(facts: CheckupFacts) -> CheckupFacts:
    """The facts with the numbers of the rows at each input and loss that has just these rows."""
    numbers = facts.row_numbers
    if numbers is None:
        return facts
    return replace(
        facts,
        inputs=tuple(
            replace(each, row_numbers=numbers) if len(np.atleast_1d(each.values)) == len(numbers) else each
            for each in facts.inputs
        ),
        losses=tuple(
            replace(each, row_numbers=numbers)
            if each.all_targets is not None and len(np.atleast_1d(each.all_targets)) == len(numbers)
            else each
            for each in facts.losses
        ),
    )
