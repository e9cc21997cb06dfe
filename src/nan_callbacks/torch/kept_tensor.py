"""One tensor of a module that a training step may write, with what is needed to see it and to put it back."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from nan_callbacks.torch.same_bits import same_bits

SAMPLED = 16
"""Elements, evenly spread, by which a frozen parameter is recognised: a moving average moves nearly all at once."""


class KeptTensor:
    """A buffer or a frozen parameter. It may be absent (None), be written, be given other memory, or be replaced.

    Args:
        home: ``_buffers`` or ``_parameters`` of the module that owns it.
        name: Its name there.
        is_parameter: Whether it is a parameter, of which there is no copy until it was seen to be written.
    """

    def __init__(self, home: dict[str, Any], name: str, *, is_parameter: bool) -> None:
        self.home, self.name, self.is_parameter = home, name, is_parameter
        self.copy: Tensor | None = None
        self.writes_in_secret = False
        """Whether it was seen to be written without its version counter being raised, as through ``.data``."""
        self.times_replaced = 0
        self.last_moved = -1
        self.follow()
        if not is_parameter:
            self.capture()

    def follow(self) -> None:
        """Take note of which tensor is there now, and in which memory."""
        self.tensor: Tensor | None = self.home.get(self.name)
        # It keeps the memory, so that its address is not given away, and so that it can be put back.
        self.alias = None if self.tensor is None else self.tensor.detach()
        self.is_plain = self.alias is not None and _is_plain(self.alias)
        self.sampled: Tensor | None = None
        self.sample: Tensor | None = None
        if self.is_parameter and self.alias is not None and _has_sample(self.alias):
            self.sampled = _sampled(self.alias)
            self.sample = self.sampled.clone()
        self.mark()

    def mark(self) -> None:
        """Take note of the version and the address. Inference tensors have no version."""
        tensor = self.tensor
        self.counts = tensor is not None and not tensor.is_inference()
        self.version = tensor._version if tensor is not None and self.counts else 0
        self.pointer = _pointer(tensor)
        """0 of a tensor that has no address, or no elements."""

    def capture(self) -> None:
        """Copy what is there now."""
        self.follow()
        alias, copy = self.alias, self.copy
        if alias is None:
            self.copy = None
        elif copy is None or (copy.shape, copy.dtype, copy.device) != (alias.shape, alias.dtype, alias.device):
            self.copy = alias.clone()
        else:
            copy.copy_(alias)

    @property
    def is_trained(self) -> bool:
        """Whether it is a parameter that was frozen and is no more: an optimizer writes it, and a gate decides."""
        return self.is_parameter and self.tensor is not None and self.tensor.requires_grad

    @property
    def has_moved(self) -> bool:
        """Whether tensor, version or address are others than those noted."""
        return bool(those_that_moved([self]))

    @property
    def has_other_values(self) -> bool:
        """Whether the noted tensor holds other values than its copy, or than its sample if there is no copy."""
        if self.alias is None or not self.is_plain:
            return False
        if self.copy is not None:
            return not same_bits(self.alias, self.copy)
        return self.sampled is not None and self.sample is not None and not same_bits(self.sampled, self.sample)

    @property
    def has_other_sample(self) -> bool:
        """Whether what is there now differs from the noted tensor in its sample, or cannot be compared with it."""
        current = self.home.get(self.name)
        if self.sample is None or not isinstance(current, Tensor) or not _has_sample(current.detach()):
            return True
        return not same_bits(_sampled(current.detach()), self.sample)

    @property
    def is_finite(self) -> bool:
        """Whether what is there now is finite."""
        return is_known_finite(self.home.get(self.name))

    def put_back(self) -> None:
        """Tensor, memory and values as they were copied."""
        tensor, alias, copy = self.tensor, self.alias, self.copy
        if tensor is not None and alias is not None:
            if copy is None or (self.is_parameter and tensor.shape != alias.shape):
                return  # whoever shards parameters gives them other memory, and takes it away again
            if self.counts and self.is_plain:
                if _pointer(tensor) != self.pointer or tensor.shape != alias.shape:
                    tensor.data = alias
                if not same_bits(alias, copy):
                    alias.copy_(copy)
            elif self.counts and tensor._version != self.version:
                tensor.copy_(copy)
        self.home[self.name] = tensor
        self.mark()


def is_known_finite(tensor: Tensor | None) -> bool:
    """Whether there is nothing to say against a tensor; of sparse, quantised and other ones nothing can be said."""
    if tensor is None or not _is_plain(tensor.detach()) or not tensor.is_floating_point():
        return True
    try:
        return bool(torch.isfinite(tensor).all())
    except (RuntimeError, NotImplementedError):  # formats of 8 bits
        return True


def those_that_moved(kept: Iterable[KeptTensor]) -> list[KeptTensor]:
    """Those of which tensor, version or address are others than those noted."""
    found = []
    for each in kept:  # at every step: plain attributes, no calls that could be spared
        tensor: Any = each.home.get(each.name)
        noted: Any = each.tensor  # mypy takes the one for the other after the comparison
        if (
            tensor is not noted
            or (each.counts and tensor._version != each.version)
            or (each.pointer and tensor.data_ptr() != each.pointer)
        ):
            found.append(each)
    return found


def those_in_other_memory(kept: Iterable[KeptTensor]) -> list[KeptTensor]:
    """Those that are another tensor, or lie in other memory, than noted. All have an address."""
    found = []
    for each in kept:
        tensor: Any = each.home.get(each.name)
        noted: Any = each.tensor
        if tensor is not noted or tensor.data_ptr() != each.pointer:
            found.append(each)
    return found


def those_with_other_values(kept: Iterable[KeptTensor]) -> list[KeptTensor]:
    """Those that hold other values than their copies, or samples if there is no copy, although they did not move."""
    kept = list(kept)
    moved = {id(each) for each in those_that_moved(kept)}
    there = [each for each in kept if id(each) not in moved]
    copied = [each for each in there if each.copy is not None and each.has_other_values]
    sampled: dict[Any, list[KeptTensor]] = {}
    for each in there:
        if each.copy is None and each.sample is not None:
            sampled.setdefault((each.sample.device, each.sample.dtype), []).append(each)
    return [*copied, *(each for group in sampled.values() for each in _of_other_samples(group))]


def _of_other_samples(group: list[KeptTensor]) -> list[KeptTensor]:
    """Samples are compared together: mostly none has changed."""
    now = torch.cat([each.sampled for each in group if each.sampled is not None])
    before = torch.cat([each.sample for each in group if each.sample is not None])
    return [] if same_bits(now, before) else [each for each in group if each.has_other_values]


def _pointer(tensor: Tensor | None) -> int:
    if tensor is None:
        return 0
    try:
        return tensor.data_ptr()
    except (NotImplementedError, RuntimeError):  # sparse, or a subclass that wraps other tensors
        return 0


def _has_sample(alias: Tensor) -> bool:
    return _is_plain(alias) and alias.is_contiguous() and alias.numel() > 0


def _sampled(alias: Tensor) -> Tensor:
    return alias.view(-1)[:: max(alias.numel() // SAMPLED, 1)]


def _is_plain(alias: Tensor) -> bool:
    """Whether values can be compared and written like those of any dense tensor."""
    dense = type(alias) is Tensor and alias.layout is torch.strided and alias.device.type != "meta"
    return dense and not alias.is_quantized and not alias.is_inference()
