"""Running variances of normalisation layers: by how much they grow in a step."""

from __future__ import annotations

import torch
from torch import Tensor, nn

NORMALISATION = nn.modules.batchnorm._NormBase
"""Base of BatchNorm, SyncBatchNorm and InstanceNorm."""


class RunningVariances:
    """Watches the running variances of a module.

    Args:
        module: The module.
    """

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._norms: Tensor | None = None
        self._find()

    def refresh(self) -> None:
        """Look for normalisation layers anew, and compare the next step with the state as it is now."""
        self._find()
        self.forget_jump()

    def jump(self) -> Tensor | None:
        """Largest growth factor of a running variance's norm since the last call.

        Returns:
            Shape [], on the device of the first normalisation layer; None on the first call and without such layers.
        """
        before, self._norms = self._norms, self._measure()
        return None if before is None or self._norms is None else (self._norms / before).max()

    def forget_jump(self) -> None:
        """The last step was undone: compare the next one with the state before it."""
        self._norms = self._measure()

    def _find(self) -> None:
        owners = [owner for owner in self._module.modules() if isinstance(owner, NORMALISATION)]
        self._variances = [owner.running_var for owner in owners if owner.running_var is not None]

    def _measure(self) -> Tensor | None:
        if not self._variances:
            return None
        device = self._variances[0].device
        return torch.stack([norm.to(device) for norm in torch._foreach_norm(self._variances)])
