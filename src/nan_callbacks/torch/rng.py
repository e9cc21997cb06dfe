"""Random number streams: captured and put back exactly."""

from __future__ import annotations

import ctypes
import random
from typing import Any

import numpy as np
import torch


class RngState:
    """State of the torch (CPU and every CUDA device in use), NumPy and Python global generators at one moment."""

    def __init__(self, previous: RngState | None = None) -> None:
        """Capture.

        Args:
            previous: An earlier state. What has not moved since is taken over from it.
        """
        self._torch = torch.get_rng_state()
        self._cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None
        self._numpy_mark = _numpy_mark()
        self._numpy: Any = previous._numpy if previous is not None and self._same_numpy(previous) else _numpy_state()
        self._python = random.getstate()

    def _same_numpy(self, previous: RngState) -> bool:
        # With a cached Gaussian (index 3) a draw may leave the stream itself where it is.
        return self._numpy_mark is not None and self._numpy_mark == previous._numpy_mark and not previous._numpy[3]

    def restore(self) -> None:
        """Continue all streams from this moment."""
        torch.set_rng_state(self._torch)
        if self._cuda is not None:
            torch.cuda.set_rng_state_all(self._cuda)
        np.random.set_state(self._numpy)  # noqa: NPY002
        random.setstate(self._python)

    def state_dict(self) -> dict[str, Any]:
        """Plain containers and tensors only, for a weights-only load."""
        kind, keys, position, has_gauss, cached = self._numpy
        return {
            "torch": self._torch,
            "cuda": self._cuda,
            "numpy": [
                str(kind),
                torch.from_numpy(keys.astype(np.int64)),
                int(position),
                int(has_gauss),
                float(cached),
            ],
            "python": [self._python[0], list(self._python[1]), self._python[2]],
        }

    @classmethod
    def from_state_dict(cls, state: dict[str, Any]) -> RngState:
        """Rebuild a state made by :meth:`state_dict`."""
        self = cls.__new__(cls)
        kind, keys, position, has_gauss, cached = state["numpy"]
        version, internal, gauss = state["python"]
        self._torch, self._cuda = state["torch"], state["cuda"]
        self._numpy = (kind, keys.numpy().astype(np.uint32), position, has_gauss, cached)
        self._python = (version, tuple(internal), gauss)
        self._numpy_mark = None
        return self


def _numpy_state() -> Any:
    return np.random.get_state()  # noqa: NPY002 - the global stream is what user code draws from


def _numpy_mark() -> tuple[int, ...] | None:
    """A few words of NumPy's global Mersenne Twister and its position: equal if nothing was drawn in between.

    Reading the whole state takes 25 microseconds, more than the rest of all streams together. The layout is NumPy's
    public ``ctypes`` interface: 624 words of 32 bits and a position.
    """
    generator = np.random.get_bit_generator()  # type: ignore[attr-defined]
    if not isinstance(generator, np.random.MT19937):
        return None
    words = (ctypes.c_uint32 * 625).from_address(generator.ctypes.state_address)
    return words[624], words[0], words[1], words[312], words[623]
