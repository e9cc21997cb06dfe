"""What one sampled step measured of the layers: a look inside, now and then, that decides nothing."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class LayerObservation:
    """One layer (or activation) at one sampled step. None: not measured."""

    name: str
    kind: str = ""
    """Class of the layer, or the activation's name."""
    is_output: bool = False
    """Whether no layer with weights comes after it: confidence of outputs is no illness."""
    trainable: bool = True
    saturated_share: float | None = None
    """Share of the outputs of a sigmoid or tanh (or of the gates of a recurrent layer) within 1 % of a bound."""
    dead_share: float | None = None
    """Share of the units of a rectifier that are zero for the whole batch."""
    largest: float | None = None
    """Largest magnitude of the finite outputs."""
    dtype: str = "float32"
    """Of the outputs."""
    weight_norm: float | None = None
    grad_norm: float | None = None
    update_norm: float | None = None
    """Norm of what the optimizer added to the weights in this step."""
    at_epsilon: float | None = None
    """Share of an adaptive optimizer's second moments whose root is below its epsilon."""

    @property
    def pull(self) -> float | None:
        """Gradient over weight: how much the loss wants of the layer; None without both."""
        if self.grad_norm is None or not self.weight_norm:
            return None
        return self.grad_norm / self.weight_norm


@dataclass(frozen=True, kw_only=True)
class HealthObservation:
    """One sampled step."""

    step: int
    epoch: int = 0
    batch_index: int = 0
    layers: tuple[LayerObservation, ...] = ()
    """In the order of the forward pass."""
    rate_share: float = 1.0
    """The learning rate as a share of the largest that the run has had so far."""

    @property
    def weighted(self) -> tuple[LayerObservation, ...]:
        """Trainable layers whose weights and gradients are known."""
        return tuple(layer for layer in self.layers if layer.trainable and layer.pull is not None)
