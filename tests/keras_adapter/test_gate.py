"""The gate in backend operations selects exactly what the core's reference selects."""

import itertools
import math

import keras
import numpy as np
import pytest

from nan_callbacks.core import Limits
from nan_callbacks.keras.gate import admits
from nan_callbacks.keras.readings import pack_limits

VALUES = [None, math.nan, math.inf, -math.inf, 0.0, -1.0, 0.1, 5.0, 1e30]
EDGES = [0.1, 1.0 / 3.0, 5.0, math.inf]


def decide(limits, numbers):
    row = keras.ops.convert_to_tensor(pack_limits([limits], 1.0)[0])
    tensors = [None if n is None else keras.ops.convert_to_tensor(np.float32(n)) for n in numbers]
    return bool(keras.ops.convert_to_numpy(admits(row, *tensors)))


def reference(limits, numbers):
    return limits.admits(*(None if n is None else float(np.float32(n)) for n in numbers))


@pytest.mark.parametrize("flags", list(itertools.product([False, True], repeat=3)), ids=str)
def test_every_kind_of_number_meets_every_permission(flags):
    limits = Limits(5.0, 5.0, 5.0, *flags)

    for numbers in itertools.product(VALUES, repeat=3):
        if numbers[2] in (-math.inf, -1.0):
            continue  # a ratio of norms
        assert decide(limits, numbers) == reference(limits, numbers), numbers


def test_limits_that_float32_cannot_hold_are_still_exact():
    generator = np.random.default_rng(0)
    for edge in [*EDGES, *generator.lognormal(0, 20, 200), 3.5e38, 1e300]:
        limits = Limits(max_loss=float(edge), max_grad_norm=float(edge), max_statistics_jump=float(edge))
        with np.errstate(over="ignore"):
            nearest = np.float32(edge)
        for value in (nearest, np.nextafter(nearest, np.float32(0)), np.nextafter(nearest, np.float32(np.inf))):
            if not np.isfinite(value):
                continue
            for numbers in ((value, None, None), (None, value, None), (1e-40, None, value)):
                assert decide(limits, numbers) == reference(limits, numbers), (edge, value)
