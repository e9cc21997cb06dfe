"""Buffers: what a forward pass writes besides its output, kept so that a dropped batch leaves no trace."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nan_callbacks.torch.snapshot import grouped

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
        self._lazy: list[_Kept] = []
        self._variances: list[Tensor] = []
        for owner in self._module.modules():
            running = isinstance(owner, NORMALISATION)
            for name, buffer in owner._buffers.items():
                if not running:
                    self._lazy.append(_Kept(owner, name))
                elif buffer is not None:
                    self._eager.append((owner, name, buffer, buffer.detach().clone()))
                    if name == "running_var":
                        self._variances.append(buffer)
        # Aliases without a graph, made once: they share memory with the buffers.
        self._copy_groups = grouped((copy, buffer.detach()) for _, _, buffer, copy in self._eager)
        self._variance_norms: Tensor | None = None

    def capture(self) -> None:
        """Remember the buffers as they are now."""
        for copies, sources in self._copy_groups:
            torch._foreach_copy_(copies, sources)
        for kept in self._lazy:
            if kept.has_changed:
                kept.capture()

    @torch.no_grad()
    def restore(self, *, only_non_finite: bool = False) -> None:
        """Put the buffers back as they were captured.

        Args:
            only_non_finite: Leave buffers alone that hold finite values.
        """
        for owner, name, buffer, copy in self._eager:
            current = owner._buffers.get(name)
            if not only_non_finite or not _is_finite(current):
                buffer.copy_(copy)
                owner._buffers[name] = buffer
        for kept in self._lazy:
            if kept.has_changed and (not only_non_finite or not _is_finite(kept.current)):
                kept.restore()

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


class _Kept:
    """One buffer, which may be absent (None), be written, or be replaced by another tensor."""

    def __init__(self, owner: nn.Module, name: str) -> None:
        self._owner, self._name = owner, name
        self.capture()

    @property
    def current(self) -> Tensor | None:
        return self._owner._buffers.get(self._name)

    @property
    def has_changed(self) -> bool:
        current = self.current
        return current is not self._buffer or _version(current) != self._seen

    def capture(self) -> None:
        self._buffer = self.current
        self._copy = None if self._buffer is None else self._buffer.detach().clone()
        self._seen = _version(self._buffer)

    def restore(self) -> None:
        if self._buffer is not None and self._copy is not None and _version(self._buffer) != self._seen:
            self._buffer.copy_(self._copy)
        self._owner._buffers[self._name] = self._buffer
        self._seen = _version(self._buffer)


def _version(buffer: Tensor | None) -> int:
    """How often a buffer was written. Inference tensors do not count; they cannot be written in training either."""
    return 0 if buffer is None or buffer.is_inference() else buffer._version


def _is_finite(buffer: Tensor | None) -> bool:
    return buffer is None or bool(torch.isfinite(buffer).all())
