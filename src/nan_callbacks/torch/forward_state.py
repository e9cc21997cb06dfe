"""What a training step writes besides its output, its gradients and its update, kept for dropped batches.

These are buffers, and parameters that no gradient reaches: moving averages, teachers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from nan_callbacks.torch.copied_together import CopiedTogether
from nan_callbacks.torch.kept_tensor import KeptTensor, is_known_finite, those_that_moved, those_with_other_values
from nan_callbacks.torch.running_variances import NORMALISATION

SMALL = 1 << 16
"""Elements of small buffers that are copied at every step whatever happens to them: 256 KiB in float32, which a CPU
copies in some 20 microseconds. Nothing can be written to them unnoticed."""


class ForwardState:
    """Copies of the buffers and of written frozen parameters of some modules, as they were at the start of a step.

    - Running statistics, whose kernels write without raising a version counter (seen with torch 2.13), and small
      buffers are copied at every step.
    - Any other buffer is copied after its version or its address changed, so that large masks and tables cost nothing.
    - A frozen parameter is copied once it was seen to be written: frozen backbones cost no memory.
    - Writing through ``.data`` or NumPy shows in neither version nor address. So values are compared with the copies
      (those of frozen parameters by a sample) at the captures 1, 2, 4, 8, ... and whenever :meth:`look` is called. What
      was seen to be written like that is copied at every step from then on.

    Args:
        modules: Returns the modules whose own buffers and parameters are kept, such as ``module.modules``.
        parameters: Whether frozen parameters are kept as well.
    """

    def __init__(self, modules: Callable[[], Iterable[nn.Module]], *, parameters: bool = True) -> None:
        self._modules, self._with_parameters = modules, parameters
        self._known: dict[tuple[int, str], KeptTensor] = {}
        self._always = CopiedTogether()
        self._seldom: list[KeptTensor] = []
        self._captures = 0
        self._looked_at = 0
        self.refresh()

    @torch.no_grad()
    def refresh(self) -> None:
        """Look for tensors anew, as after a change of the module's structure, and remember them as they are now."""
        for kept in those_with_other_values(self._seldom):
            kept.writes_in_secret = True
        always, buffers, parameters = self._find()
        buffers.sort(key=_size)
        left = SMALL
        while buffers and _size(buffers[0]) <= left:
            left -= _size(buffers[0])
            always.append(buffers.pop(0))
        if always == self._always.kept:
            self._always.capture()
        else:
            self._always = CopiedTogether(always)
        self._seldom = [*buffers, *parameters]
        for kept in those_that_moved(self._seldom):
            # Parameters are written by rollbacks and averages as well: that alone is no reason to copy them.
            if kept.copy is None and kept.is_parameter:
                kept.follow()
            else:
                kept.capture()
        self._looked_at = self._captures

    def _find(self) -> tuple[list[KeptTensor], list[KeptTensor], list[KeptTensor]]:
        """What is copied at every step in any case, other buffers, and other frozen parameters."""
        before, self._known = self._known, {}
        always: list[KeptTensor] = []
        buffers: list[KeptTensor] = []
        parameters: list[KeptTensor] = []
        for owner in self._modules():
            running = isinstance(owner, NORMALISATION)
            for name, _ in owner._buffers.items():  # of scripted modules they cannot be iterated otherwise
                kept = self._know(before, owner._buffers, name, is_parameter=False)
                (always if running or kept.writes_in_secret else buffers).append(kept)
            for name, parameter in owner._parameters.items() if self._with_parameters else ():
                if parameter is not None and not parameter.requires_grad:
                    kept = self._know(before, owner._parameters, name, is_parameter=True)
                    (always if kept.writes_in_secret else parameters).append(kept)
        return always, buffers, parameters

    def _know(
        self, before: dict[tuple[int, str], KeptTensor], home: dict[str, Any], name: str, *, is_parameter: bool
    ) -> KeptTensor:
        key = id(home), name  # the one known holds its home, so that the identity is not given away
        kept = before.get(key) or KeptTensor(home, name, is_parameter=is_parameter)
        self._known[key] = kept
        return kept

    @torch.no_grad()
    def capture(self) -> None:
        """Remember the state as it is now."""
        self._captures += 1
        self._watch([kept for kept in self._seldom if kept.writes_in_secret])
        self._always.capture()
        thawed = False
        for kept in those_that_moved(self._seldom):
            self._after_moving(kept)
            thawed |= kept.is_trained
        if thawed:
            self._seldom = [kept for kept in self._seldom if not kept.is_trained]
        if self._captures & (self._captures - 1) == 0:
            self.look()

    def _after_moving(self, kept: KeptTensor) -> None:
        """A tensor was written, or given other memory, since the last capture."""
        again, kept.last_moved = kept.last_moved == self._captures - 1, self._captures
        # Averages are swapped in for a validation, and out: parameters that are as before need no copy yet.
        if kept.copy is None and kept.is_parameter and not again and not kept.has_other_sample:
            kept.follow()
        else:
            kept.capture()

    @torch.no_grad()
    def look(self) -> None:
        """Compare values with copies, between two steps: who writes in secret is copied at every step from now on."""
        self._looked_at = self._captures
        secret = those_with_other_values(self._seldom)
        for kept in secret:
            kept.writes_in_secret = True
        self._watch(secret)

    def _watch(self, secret: list[KeptTensor]) -> None:
        """Copy them at every step from now on."""
        if not secret:
            return
        self._seldom = [kept for kept in self._seldom if not kept.writes_in_secret]
        self._always = CopiedTogether([*self._always.kept, *secret])

    @torch.no_grad()
    def restore(self, *, only_non_finite: bool = False) -> None:
        """Put the state back as it was captured.

        Args:
            only_non_finite: Leave tensors alone that hold finite values.
        """
        for kept in self._always.kept:
            if not kept.is_trained and not (only_non_finite and kept.is_finite):
                kept.put_back()
        for kept in self._seldom:
            if kept.is_trained:
                continue
            if not kept.has_moved and kept.has_other_values:
                self._restore_secret(kept, only_non_finite=only_non_finite)
            elif kept.has_moved and not (only_non_finite and kept.is_finite):
                kept.put_back()

    def mends(self, parameter: Tensor) -> bool:
        """Whether a parameter that is non-finite now was finite before the step, and will be put back."""
        kept = next((kept for kept in self._known.values() if kept.tensor is parameter), None)
        if kept is None or kept.copy is None or kept.is_trained:
            return False
        return is_known_finite(kept.copy)

    def _restore_secret(self, kept: KeptTensor, *, only_non_finite: bool) -> None:
        """One found out just now. A copy from an earlier step is better than nothing only if the values are lost."""
        kept.writes_in_secret = True
        fresh = self._looked_at == self._captures and not only_non_finite
        if kept.copy is not None and (fresh or not kept.is_finite):
            kept.put_back()


def _size(kept: KeptTensor) -> int:
    return 0 if kept.alias is None else kept.alias.numel()
