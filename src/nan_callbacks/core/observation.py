"""What one attempted optimizer step measured: the only thing the core ever sees of a training run."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class StepObservation:
    """The numbers of one attempted optimizer step, reduced to floats by an adapter.

    All quantities are those of the whole step: un-scaled (no loss scale), un-divided (no accumulation factor) and,
    for gradients, before clipping.
    """

    step: int
    """Attempted optimizer steps of this fit before this one, counted over all optimizers. The only clock."""
    epoch: int = 0
    """Epoch, for people; never compared."""
    batch_index: int = 0
    """Index of the (last) batch of this step within its epoch, for people; never compared."""
    stream: int = 0
    """Index of the optimizer. Every optimizer has a history of its own."""
    competing: bool = False
    """True if the run has several optimizers, whose losses may rise by design (adversarial training)."""
    loss: float | None = None
    """Mean raw loss of the step's batches; NaN and Inf as they are. None if the adapter could not see one."""
    grad_norm: float | None = None
    """Global L2 norm of the gradients; non-finite if any gradient is. None if there were no gradients."""
    statistics_jump: float | None = None
    """Largest factor by which the running variance of a normalisation layer grew in this step. None without any."""
    non_finite_gradients: int = 0
    """Number of parameters whose gradient holds a NaN or an Inf."""
    non_finite_names: tuple[str, ...] = ()
    """Names of the first few parameters with a non-finite gradient (or value, if the parameters are at fault)."""
    non_finite_parameters: int | None = None
    """Number of parameters that were non-finite before this step. None: not looked at (only incidents look)."""
    non_finite_frozen: int = 0
    """How many of these are frozen: no optimizer writes them."""
    batch_finite: bool | None = None
    """False if the batch itself holds a NaN or an Inf. None: not looked at (only incidents look)."""
    param_norm: float | None = None
    """Global L2 norm of all parameters before the step. None on most steps: measured at a cadence."""
    least_norm: float = 0.0
    """Norm of parameters of these shapes on the smallest usual scale; beside the parameter norm."""
    optimizer_name: str = ""
    """Class of the optimizer, for people."""
    learning_rates: tuple[float, ...] = ()
    """Learning rate of each parameter group."""
    loss_scale: float | None = None
    """Scale of a dynamic loss scaler (float16), None without one."""
    scaler_overflow: bool = False
    """True if a dynamic loss scaler found an overflow in the scaled gradients and will skip the step by itself."""
    applied: bool = True
    """True if the gate let the update through to the weights."""

    @property
    def grown_norm(self) -> float | None:
        """The parameter norm as growth is read from it: what began smaller than usual has grown from the usual."""
        norm = self.param_norm
        return norm if norm is None or not math.isfinite(norm) else max(norm, self.least_norm)

    @property
    def loss_is_finite(self) -> bool:
        """Whether there is a loss and it is finite."""
        return self.loss is not None and math.isfinite(self.loss)

    @property
    def grad_norm_is_finite(self) -> bool:
        """Whether there is a gradient norm and it is finite."""
        return self.grad_norm is not None and math.isfinite(self.grad_norm)

    @property
    def optimizer_broke_parameters(self) -> bool:
        """Whether there are non-finite parameters that an optimizer writes."""
        return (self.non_finite_parameters or 0) > self.non_finite_frozen

    @property
    def left_to_scaler(self) -> bool:
        """Whether this is an overflow of scaled gradients that a dynamic loss scaler handles by itself.

        Not so at a scale of one or less, where scaling cannot be the reason, nor with a non-finite loss, which no
        smaller scale would cure.
        """
        return (
            self.scaler_overflow
            and self.loss_scale is not None
            and self.loss_scale > 1.0
            and (self.loss is None or self.loss_is_finite)
        )
