"""Everything that is known about an incident before anything is tried: numbers and names only."""

from __future__ import annotations

import enum
from collections.abc import Collection
from dataclasses import dataclass, field

from nan_callbacks.core.finding import Finding
from nan_callbacks.core.observation import StepObservation
from nan_callbacks.core.statistics import median
from nan_callbacks.core.tensor_summary import TensorSummary
from nan_callbacks.diagnosis.origin import ReplayResult

USUALLY = 64
"""Newest accepted steps that tell what is usual: half of the guard's own window."""


class Role(enum.StrEnum):
    """What a part of a batch is for, as far as it can be told."""

    INPUT = "input"
    TARGET = "target"
    WEIGHT = "weight"
    """Weights of samples."""
    UNKNOWN = "unknown"


@dataclass(frozen=True, kw_only=True)
class BatchPart:
    """One tensor of the failed batch, beside the same tensor of the recent accepted batches."""

    role: Role
    failed: TensorSummary
    recent: TensorSummary | None = None
    """Over all recent batches together; None if there are none."""
    mean: float | None = None
    """Of the finite values of the failed batch."""
    std: float | None = None
    recent_mean: float | None = None
    recent_std: float | None = None
    former_std: float | None = None
    """Of the older half of the recent batches."""
    non_finite_rows: tuple[int, ...] = ()
    outlier_rows: tuple[int, ...] = ()
    """Rows whose largest magnitude is more than 10 times that of any recent row (or, without recent batches, of the
    median row of this batch), the worst first. 10: ``min_ratio`` of the guard."""
    outlier_ratio: float = 1.0
    """Largest magnitude of the worst row over that yardstick."""
    far_rows: tuple[int, ...] = ()
    """The same of distances from the median of recent rows: among temperatures around 20, -127 is far off and not
    large. Empty without recent batches."""
    far_ratio: float = 1.0
    feature_std_ratio: float = 1.0
    """Largest over smallest non-zero standard deviation of a feature (last axis), over all recent batches."""
    moved_share: float = 0.0
    """Largest share of the rows that lie outside of all that recent batches held in one and the same respect: a
    feature, or the mean, the spread or the largest magnitude of a row. 0 without recent batches, or of under 4 rows."""
    moved_lately: float = 0.0
    """The same beside the older half of the recent batches: a change that some batches have passed with already."""
    unlike_rows: tuple[int, ...] = ()
    """Rows that are within reach of recent ones in size, or not, and over all features unlike any of them."""
    is_integral: bool = False
    """Whether all finite values are whole numbers: class indices, token ids, counts."""


@dataclass(frozen=True, kw_only=True)
class LayerEvidence:
    """One layer at the failed step: its activations, weights and gradients, as far as they were measured."""

    name: str
    kind: str
    """Class of the layer, or the activation's name."""
    activation_std: float | None = None
    activation_max: float | None = None
    """Largest magnitude of the finite outputs."""
    dtype: str = "float32"
    """Of the outputs."""
    consumed: bool = False
    """Whether another layer was seen to take its output."""
    saturated_share: float | None = None
    """Share of the outputs of a sigmoid or tanh within 1 % of a bound."""
    dead_share: float | None = None
    """Share of the units of a rectifier that are zero for the whole batch."""
    weight_norm: float | None = None
    weight_scale: float | None = None
    """Standard deviation of the weights times the square root of the fan-in: about 1 (Glorot, LeCun) to 1.4 (He)."""
    grad_norm: float | None = None
    """0 as well if it is cut off from the loss; None if it is frozen or has no weights."""
    trained: bool | None = None
    """Whether updates reach its matrix: it is not frozen, an optimizer holds it, it gets a gradient. None: it has none,
    or it is not known."""


@dataclass(frozen=True, kw_only=True)
class Concern:
    """A mistake that can be seen in the step itself, without anything having gone wrong."""

    code: str
    """Of the catalogue."""
    kind: str
    """What exactly, in snake_case."""
    because: tuple[str, ...] = ()
    certain: bool = False
    """Whether training cannot go right with it."""


@dataclass(frozen=True, kw_only=True)
class History:
    """The run up to the incident, oldest first; accepted steps only, at most the last 256."""

    losses: tuple[float, ...] = ()
    grad_norms: tuple[float, ...] = ()
    param_norms: tuple[float, ...] = ()
    """Measured at a cadence, so there are fewer of them."""
    learning_rates: tuple[float, ...] = ()
    """Largest of the parameter groups."""
    from_start: bool = False
    """Whether the first step of the run is among them."""
    reached: int = 0
    """Most accepted steps that the run has had, up to 256: those that a rollback undid are among them, and not in the
    series."""
    is_complete: bool = False
    """Whether a guard has watched the fit from its beginning: if nothing is recorded, nothing was trained."""
    incidents: int = 0
    """Before this one."""
    skipped: int = 0
    rollbacks: int = 0

    @property
    def usual_loss(self) -> float | None:
        """Median of the newest losses; None without any."""
        return median(self.losses[-USUALLY:]) if self.losses else None

    @property
    def usual_norm(self) -> float | None:
        """Median of the newest gradient norms; None without any."""
        return median(self.grad_norms[-USUALLY:]) if self.grad_norms else None


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What is known about an incident."""

    seen: StepObservation
    findings: tuple[Finding, ...] = ()
    replay: ReplayResult | None = None
    batch: tuple[BatchPart, ...] = ()
    prepared: tuple[BatchPart, ...] = ()
    """What first layers receive of inputs, where samples stand out in it that do not in the batch."""
    rows: int | None = None
    """Samples of the failed batch; None: as many as its first part has rows. Parts of another length are not made of
    samples: points in time, such as a solver is asked for, come first in some."""
    guilty_rows: tuple[int, ...] = ()
    """Rows without which the step is finite (bisection), in ascending order; empty if no few rows are to blame."""
    history: History = field(default_factory=History)
    layers: tuple[LayerEvidence, ...] = ()
    """In the order of the forward pass."""
    trains_nothing: bool = False
    """Whether no update reaches any parameter of the model: each is frozen, cut off, or held by no optimizer."""
    in_no_optimizer: tuple[str, ...] = ()
    """Parts of the model that get gradients and are held by no optimizer at all, if two optimizers of one kind hold the
    same parameters: empty otherwise."""
    all_frozen: bool = False
    """Whether no parameter of the model is meant to be trained."""
    framework: str = ""
    """``lightning`` or ``keras``: in whose words remedies are given."""
    backend: str = ""
    """``torch``, ``tensorflow`` or ``jax``."""
    precision: str = "float32"
    """``float32``, ``float16``, ``bfloat16`` or ``float64``: the narrowest type that the model computes in."""
    clipping: float | None = None
    """Norm or value that the run clips gradients to; None without clipping."""
    recurrent: bool = False
    """Whether the model holds a recurrent layer."""
    classifies: bool = False
    """Whether the step was seen to compare probabilities of classes with labels."""
    constant_loss: float | None = None
    """Loss of the best prediction that is the same for every sample; None if it is not known."""
    labels_used: Collection[str] = ()
    """Parts of the batch that the step was seen to compare with what its layers return, or to select that by."""
    picking: Collection[str] = ()
    """Parts of the batch by which the step moves values between its layers (bonds, edges, positions): no labels."""
    alike_weights: tuple[str, ...] = ()
    """Trained matrices in which a fifth of the units (a gate of a recurrent layer, or more) have the very same weights,
    and not zero."""
    zero_weights: tuple[str, ...] = ()
    """Trained matrices of which every element is 0, by name, in order."""
    optimizer: str = ""
    optimizer_epsilon: float | None = None
    known_issues: tuple[str, ...] = ()
    """Known issues of the installed versions that fit the operation at which it began: what and where to read on."""
    concerns: tuple[Concern, ...] = ()
    """Mistakes that the checkup sees in the failed batch and the recent ones."""
    device: str = "cpu"
