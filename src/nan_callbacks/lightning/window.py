"""One accumulation window: what must be remembered when it opens and put back if its step is dropped."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nan_callbacks.core.draws import Streams
from nan_callbacks.lightning.metrics import MetricMemory
from nan_callbacks.torch.forward_state import ForwardState
from nan_callbacks.torch.lab_bench import Fed
from nan_callbacks.torch.rng import RngState
from nan_callbacks.torch.running_variances import RunningVariances
from nan_callbacks.torch.snapshot import clone_tree, restore_scaler


class Window:
    """The batches between two optimizer steps, and the state from before the first of them.

    Args:
        trainer: The trainer of the fit.
        module: Its module.
    """

    def __init__(self, trainer: Any, module: Any) -> None:
        self.state = ForwardState(module.modules)
        self.variances = RunningVariances(module)
        self.metrics = MetricMemory(trainer, module)
        self.losses: list[Tensor] = []
        """Losses as they went into the backward pass since the last optimizer step."""
        self.batches: list[Fed] = []
        """Batches of the window, for a look at their values if the step goes wrong."""
        self.is_open = False
        self._trainer, self._module = trainer, module
        self._rng: RngState | None = None
        self._newest_rng: RngState | None = None
        self._arrival: RngState | None = None
        self._scaler_state: dict[str, Any] | None = None

    @property
    def rng(self) -> RngState | None:
        """Where the random streams were before the window's first batch was fetched."""
        return self._rng

    def refresh(self) -> None:
        """The module may have changed its structure."""
        self.state.refresh()
        self.variances.refresh()
        self.metrics.refresh()

    def forget_rng(self) -> None:
        """The order of the data may be drawn together with the next batch (a new epoch): undo neither of the two."""
        self._rng = None

    def remember_rng(self) -> None:
        """The next batch may be fetched and transformed with these streams: if it turns out bad, so is its fetching."""
        self._rng = self._newest_rng = RngState(self._newest_rng)

    def take(self, fed: Fed, *, alone: bool, with_streams: bool) -> None:
        """A batch has been fetched and transformed.

        Args:
            fed: The batch.
            alone: Whether only the newest batch is kept for a look, to save the memory of an accelerator.
            with_streams: Whether to remember where the random streams are now.
        """
        if with_streams:
            self._arrival = RngState(self._newest_rng)
        if alone:
            self.batches.clear()
        self.batches.append(fed)

    def open(self) -> None:
        """Remember the state before the window's first batch."""
        self.is_open = True
        self.losses.clear()
        self.batches.clear()
        self.state.capture()
        self.metrics.capture()
        self._scaler_state = None
        if self._rng is None:
            self.remember_rng()

    def keep_scaler(self, scaler: Any) -> None:
        """Remember the loss scale before the scaler judges the step that is being dropped."""
        self._scaler_state = clone_tree(scaler.state_dict())

    def undo_forward(self, *, only_non_finite: bool = False) -> None:
        """Take back what the forward passes wrote: buffers, frozen parameters and metrics.

        Args:
            only_non_finite: Leave alone what is finite, because other optimizers' steps of this batch went through.
        """
        self.state.restore(only_non_finite=only_non_finite)
        self.metrics.restore(only_non_finite=only_non_finite)
        self.variances.forget_jump()

    def undo_rest(self, scaler: Any, streams: Streams) -> None:
        """Take back the rest: loss scale and random streams.

        Args:
            scaler: The gradient scaler, None without one.
            streams: Where the streams go on from.
        """
        state = {Streams.BEFORE_FETCH: self._rng, Streams.ARRIVAL: self._arrival}.get(streams)
        if state is not None:
            state.restore()
        self.undo_scaler(scaler)

    def undo_scaler(self, scaler: Any) -> None:
        """Take back what the scaler made of the dropped step."""
        if scaler is not None and self._scaler_state is not None:
            restore_scaler(scaler, self._scaler_state)

    def close(self) -> None:
        """The window's step is over."""
        self.is_open = False
        self._arrival = None
        self.losses.clear()
        self.batches.clear()
        self.remember_rng()

    def take_loss(self, scale: float | None) -> Tensor | None:
        """Mean raw loss of the window, on its device; None without any. By hand, the next step has losses of its own.

        Args:
            scale: What the losses were multiplied by for half precision.
        """
        if not self.losses:
            return None
        # Lightning divides each loss by the full accumulation factor, also in a short last window.
        automatic = self._module.automatic_optimization
        factor = self._trainer.accumulate_grad_batches / len(self.losses) if automatic else 1.0
        losses = [loss.float() for loss in self.losses]
        total = losses[0] if len(losses) == 1 else torch.stack(losses).sum()
        if not automatic:
            self.losses = []
        factor /= scale or 1.0
        return total if factor == 1.0 else total * factor

    def batch_is_finite(self) -> bool:
        """Whether no tensor of the window's batches holds NaN or +Inf. A mask may hold -Inf."""
        return all(_tensor_is_usable(tensor) for fed in self.batches for tensor in _tensors(fed.batch))


def _tensor_is_usable(tensor: Tensor) -> bool:
    if not (tensor.is_floating_point() or tensor.is_complex()) or tensor.layout is not torch.strided:
        return True
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor)
    return not bool((torch.isnan(tensor) | torch.isposinf(tensor)).any())


def _tensors(batch: Any, depth: int = 4) -> list[Tensor]:
    """Tensors in nested containers and plain objects."""
    if isinstance(batch, Tensor):
        return [batch]
    if depth == 0:
        return []
    if isinstance(batch, dict):
        parts = list(batch.values())
    elif isinstance(batch, list | tuple | set):
        parts = list(batch)
    elif hasattr(batch, "__dict__"):
        parts = list(vars(batch).values())
    else:
        return []
    return [tensor for part in parts for tensor in _tensors(part, depth - 1)]
