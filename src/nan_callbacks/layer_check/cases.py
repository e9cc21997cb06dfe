"""Inputs at the edges: what a layer meets sooner or later, made with numpy alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from nan_callbacks.layer_check.spec import Arrays, InputSpec, Signature

Array: TypeAlias = NDArray[Any]
Maker: TypeAlias = Callable[[tuple[int, ...], np.random.Generator, "np.finfo[Any]"], Array]

ORDINARY = "ordinary noise"


@dataclass(frozen=True)
class Case:
    """One kind of input."""

    name: str
    content: str = ""
    """Key into the tables of makers. Default: the name."""
    grows: bool = False
    """Whether its magnitudes may leave any number format by honest growth, as in exp(10000)."""
    beyond_squares: bool = False
    """Whether its numbers are so large that their squares overflow."""
    one_row: bool = False
    precision: str = ""
    """Number format of inputs and weights; empty: as they are."""

    @property
    def key(self) -> str:
        """Key into the tables of makers."""
        return self.content or self.name


CASES = (
    Case(ORDINARY),
    Case("zeros"),
    Case("denormals"),
    Case("tiny scale (1e-10)"),
    Case("constant rows"),
    Case("repeated rows"),
    Case("alternating signs"),
    Case("one-element batch", ORDINARY, one_row=True),
    Case("empty mask"),
    Case("all-masked row"),
    Case("full mask"),
    Case("large scale (100 to 600)", grows=True),
    Case("mixed magnitudes (1e-8 to 1e8)", grows=True),
    Case("huge scale (1e4)", grows=True),
    Case("huge scale (1e10)", grows=True),
    Case("largest finite", grows=True, beyond_squares=True),
)
HALF_CASES = (
    Case("half precision", ORDINARY, precision="float16"),
    Case("half precision, zeros", "zeros", precision="float16"),
    Case("half precision, constant rows", "constant rows", precision="float16"),
    Case("half precision, large scale (100 to 600)", "large scale (100 to 600)", grows=True, precision="float16"),
)


def _signs(shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    return rng.choice(np.array([-1.0, 1.0]), shape)


def _constant_rows(shape: tuple[int, ...]) -> Array:
    rows = (np.arange(shape[0]) + 1.0) / 2
    return np.broadcast_to(rows.reshape(-1, *[1] * (len(shape) - 1)), shape).copy()


def _alternating(shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    signs = np.where(np.indices(shape).sum(0) % 2, -1.0, 1.0)
    return np.asarray(signs * rng.uniform(0.5, 1.5, shape))


_NUMBERS: dict[str, Maker] = {
    ORDINARY: lambda shape, rng, info: rng.standard_normal(shape),
    "zeros": lambda shape, rng, info: np.zeros(shape),
    "denormals": lambda shape, rng, info: _signs(shape, rng) * rng.uniform(0.01, 0.9, shape) * float(info.tiny),
    "tiny scale (1e-10)": lambda shape, rng, info: rng.standard_normal(shape) * 1e-10,
    "constant rows": lambda shape, rng, info: _constant_rows(shape),
    "repeated rows": lambda shape, rng, info: np.broadcast_to(rng.standard_normal(shape[1:]), shape).copy(),
    "alternating signs": lambda shape, rng, info: _alternating(shape, rng),
    "mixed magnitudes (1e-8 to 1e8)": lambda shape, rng, info: _signs(shape, rng) * 10 ** rng.uniform(-8, 8, shape),
    "large scale (100 to 600)": lambda shape, rng, info: _signs(shape, rng) * rng.uniform(100, 600, shape),
    "huge scale (1e4)": lambda shape, rng, info: rng.standard_normal(shape) * 1e4,
    "huge scale (1e10)": lambda shape, rng, info: rng.standard_normal(shape) * 1e10,
    "largest finite": lambda shape, rng, info: _signs(shape, rng) * float(info.max),
}
_NEVER_POSITIVE = ("zeros", "alternating signs")


def _shares(weights: Array) -> Array:
    """Weights scaled to probabilities along the last dimension."""
    if weights.shape[-1] == 1:
        return np.asarray(weights / (1 + weights))
    return np.asarray(weights / weights.sum(-1, keepdims=True))


def _certain(shape: tuple[int, ...], rng: np.random.Generator, rest: float) -> Array:
    """One class has it all; ``rest`` is left for each of the others."""
    if shape[-1] == 1:
        return np.where(rng.random(shape) < 0.5, rest, 1 - rest)
    chosen = rng.integers(shape[-1], size=shape[:-1])
    return np.where(np.arange(shape[-1]) == chosen[..., None], 1 - rest * (shape[-1] - 1), rest)


_PROBABILITIES: dict[str, Maker] = {
    ORDINARY: lambda shape, rng, info: _shares(np.exp(rng.standard_normal(shape))),
    "zeros": lambda shape, rng, info: _certain(shape, rng, 0.0),
    "denormals": lambda shape, rng, info: _certain(shape, rng, float(info.tiny) / 2),
    "tiny scale (1e-10)": lambda shape, rng, info: _certain(shape, rng, 1e-10),
    "constant rows": lambda shape, rng, info: _shares(np.ones(shape)),
    "repeated rows": lambda shape, rng, info: np.broadcast_to(
        _shares(np.exp(rng.standard_normal(shape[1:] or (1,)))), shape
    ).copy(),
    "mixed magnitudes (1e-8 to 1e8)": lambda shape, rng, info: _shares(10 ** rng.uniform(-8, 8, shape)),
}


def _mask(key: str, shape: tuple[int, ...], rng: np.random.Generator) -> Array | None:
    if key == "empty mask":
        return np.zeros(shape)
    if key == "full mask":
        return np.ones(shape)
    mask = (rng.random(shape) < 0.7).astype(np.float64)
    mask.reshape(shape[0], -1)[:, 0] = 1  # an ordinary row is never empty
    if key == "all-masked row":
        mask[0] = 0
        return mask
    return mask if key == ORDINARY else None


def _indices(key: str, spec: InputSpec, rng: np.random.Generator) -> Array | None:
    whole = {"zeros": 0, "largest finite": spec.high - 1}
    if key in whole:
        return np.full(spec.shape, whole[key])
    if key == "repeated rows":
        return np.broadcast_to(rng.integers(spec.high, size=spec.shape[1:]), spec.shape).copy()
    return rng.integers(spec.high, size=spec.shape) if key == ORDINARY else None


def _made(key: str, spec: InputSpec, rng: np.random.Generator) -> Array | None:
    """The numbers of one input; None if the case has no meaning for its kind."""
    if spec.kind == "mask":
        return _mask(key, spec.shape, rng)
    if spec.kind == "indices":
        return _indices(key, spec, rng)
    info = np.finfo(spec.dtype if spec.is_float else "float32")
    maker = (_PROBABILITIES if spec.kind == "probabilities" else _NUMBERS).get(key)
    if maker is None or (spec.kind == "positive" and key in _NEVER_POSITIVE):
        return None
    made = np.clip(maker(spec.shape, rng, info), float(info.min), float(info.max))
    return np.abs(made) if spec.kind == "positive" else made


def build(case: Case, signature: Signature, seed: int) -> Arrays | None:
    """The arrays of a case. Inputs for which it has no meaning are ordinary.

    Args:
        case: The case.
        signature: What the layer takes.
        seed: Of the random numbers.

    Returns:
        By name; None if the case has a meaning for none of the inputs.
    """
    arrays: Arrays = {}
    applies = False
    for position, spec in enumerate(signature.specs):
        made = _made(case.key, spec, np.random.default_rng((seed, position)))
        applies = applies or made is not None
        if made is None:
            made = _made(ORDINARY, spec, np.random.default_rng((seed, position)))
            assert made is not None
        arrays[spec.name] = made.astype(spec.dtype)
    if not applies:
        return None
    return rows_of(arrays, signature.rows, [0]) if case.one_row else arrays


def ordinary(signature: Signature, seed: int) -> Arrays:
    """The arrays of an ordinary batch, which every kind of input has."""
    arrays = build(CASES[0], signature, seed)
    assert arrays is not None
    return arrays


def rows_of(arrays: Arrays, size: int, rows: list[int]) -> Arrays:
    """Some rows of every array whose first dimension is the batch."""
    return {name: array[rows] if array.shape[0] == size else array for name, array in arrays.items()}
