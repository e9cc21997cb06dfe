"""Buffers: what a forward pass writes besides its output, kept so that a dropped batch leaves no trace."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from nan_callbacks.torch.snapshot import copy_pairs

NORMALISATION = nn.modules.batchnorm._NormBase
"""Base of BatchNorm, SyncBatchNorm and InstanceNorm. Their kernels write running statistics without raising the
tensor's version counter (seen with torch 2.13), so these buffers are copied every step."""


class BufferKeeper:
    """Copies of all buffers of a module as they were at the start of a step.

    Running statistics are copied every step; any other buffer only after its version counter moved, so that masks and
    position tables cost nothing.

    Args:
        module: The module whose buffers are kept.
    """

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self.refresh()

    def refresh(self) -> None:
        """Look for buffers anew, as after a change of the module's structure."""
        self._eager: list[tuple[nn.Module, str, Tensor, Tensor]] = []
        self._lazy: list[list[Any]] = []
        self._variances: list[Tensor] = []
        for owner in self._module.modules():
            running = isinstance(owner, NORMALISATION)
            for name, buffer in owner._buffers.items():
                if buffer is None:
                    continue
                if running:
                    self._eager.append((owner, name, buffer, buffer.detach().clone()))
                    if name == "running_var":
                        self._variances.append(buffer)
                else:
                    self._lazy.append([owner, name, buffer, buffer.detach().clone(), buffer._version])
        self._variance_norms: Tensor | None = None

    def capture(self) -> None:
        """Remember the buffers as they are now."""
        if self._eager:
            copy_pairs([(copy, buffer.detach()) for _, _, buffer, copy in self._eager])
        for entry in self._lazy:
            owner, name, buffer, copy, version = entry
            current = owner._buffers.get(name)
            if current is not buffer and current is not None:
                entry[2], entry[3], entry[4] = current, current.detach().clone(), current._version
            elif buffer._version != version:
                copy.copy_(buffer.detach())
                entry[4] = buffer._version

    @torch.no_grad()
    def restore(self, *, only_non_finite: bool = False) -> None:
        """Put the buffers back as they were captured.

        Args:
            only_non_finite: Leave buffers alone that hold finite values.
        """
        for owner, name, buffer, copy in self._eager:
            self._put_back(owner, name, buffer, copy, only_non_finite)
        for entry in self._lazy:
            owner, name, buffer, copy, version = entry
            if owner._buffers.get(name) is not buffer or buffer._version != version:
                self._put_back(owner, name, buffer, copy, only_non_finite)
                entry[4] = buffer._version

    def statistics_jump(self) -> Tensor | None:
        """Largest growth factor of a running variance's norm since the last call.

        Returns:
            Shape [], on the device of the first normalisation layer; None on the first call and without such layers.
        """
        if not self._variances:
            return None
        device = self._variances[0].device
        norms = torch.stack([norm.to(device) for norm in torch._foreach_norm(self._variances)])
        before, self._variance_norms = self._variance_norms, norms
        return None if before is None else (norms / before).max()

    def forget_jump(self) -> None:
        """The last step was undone: compare the next one with the state before it."""
        if self._variances:
            device = self._variances[0].device
            self._variance_norms = torch.stack([norm.to(device) for norm in torch._foreach_norm(self._variances)])

    @staticmethod
    def _put_back(owner: nn.Module, name: str, buffer: Tensor, copy: Tensor, only_non_finite: bool) -> None:
        current = owner._buffers.get(name)
        if only_non_finite and (current is None or bool(torch.isfinite(current).all())):
            return
        buffer.copy_(copy)
        if current is not buffer:
            owner._buffers[name] = buffer
