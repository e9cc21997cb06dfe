"""A Keras layer that computes in another number format for a while."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any


@contextmanager
def computing_in(layer: Any, precision: str) -> Iterator[None]:
    """A layer and all layers in it compute in a number format inside; their variables stay as they are.

    Args:
        layer: A layer, a loss or a function.
        precision: Such as ``float64``; empty: nothing changes.
    """
    import keras

    if not precision:
        yield
        return
    policy = _policy(precision)
    parts = layer._flatten_layers() if isinstance(layer, keras.Layer) else []
    kept: list[tuple[Any, str, Any]] = [(part, "_dtype_policy", part._dtype_policy) for part in parts]
    if isinstance(layer, keras.losses.Loss):
        kept += [(layer, name, getattr(layer, name)) for name in ("_dtype_policy", "_dtype") if hasattr(layer, name)]
    floatx = keras.config.floatx()
    try:
        for part, name, _ in kept:
            setattr(part, name, precision if name == "_dtype" else policy)
        keras.config.set_floatx(precision)  # what code converts without naming a type fits the rest
        yield
    finally:
        keras.config.set_floatx(floatx)
        for part, name, value in kept:
            setattr(part, name, value)


def _policy(precision: str) -> Any:
    import keras

    policy = keras.dtype_policies.DTypePolicy(precision)
    # Layers cast their variables only if these types differ. The variables are not converted, so they do.
    policy._variable_dtype = "float32"
    return policy


@contextmanager
def wide_numbers_allowed(backend: str, precision: str) -> Iterator[None]:
    """JAX makes float32 of every float64 unless it is told otherwise, and Keras does so on torch as well."""
    if precision != "float64":
        yield
        return
    with ExitStack() as stack:
        if backend == "jax":
            import jax

            # Its home moved out of `jax.experimental` in 2025.
            home: Any = jax if hasattr(jax, "enable_x64") else importlib.import_module("jax.experimental")
            stack.enter_context(home.enable_x64(True))
        stack.enter_context(_wide_promotion())
        yield


@contextmanager
def _wide_promotion() -> Iterator[None]:
    """Keras' operations give float64 for float64 inside; in a version whose table is elsewhere nothing changes."""
    try:
        table: Any = importlib.import_module("keras.src.backend.common.dtypes").BIT64_TO_BIT32_DTYPE
    except (ImportError, AttributeError):
        table = {}
    before = table.get("float64")
    table["float64"] = "float64"
    try:
        yield
    finally:
        table["float64"] = before
