"""Random number streams: captured and put back exactly."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch


class RngState:
    """State of the torch (CPU and every CUDA device in use), NumPy and Python global generators at one moment."""

    def __init__(self) -> None:
        self._torch = torch.get_rng_state()
        self._cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None
        self._numpy: Any = np.random.get_state()  # noqa: NPY002 - the global stream is what user code draws from
        self._python = random.getstate()

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
        return self
