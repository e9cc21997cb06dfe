"""How much memory a state takes on the accelerators of TensorFlow, which tells no device's size."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from typing import Any

import tensorflow as tf


def bytes_on_accelerators(variables: Iterable[Any]) -> Counter[str]:
    """Size of some Keras variables by device; nothing of those on the host."""
    sizes: Counter[str] = Counter()
    for variable in variables:
        device = str(getattr(variable.value, "device", ""))
        if device and "CPU" not in device.upper():
            sizes[device] += math.prod(variable.shape) * tf.as_dtype(variable.dtype).size
    return sizes
