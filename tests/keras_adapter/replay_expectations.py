"""What a replay should find, and how to make the small models that it is tried on."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import keras
import numpy as np
from keras import layers

BACKEND = keras.backend.backend()
ROWS = 8


@dataclass(frozen=True)
class Expected:
    """Fields that are None are not compared; `line` must be a part of the source line."""

    operation: str | None = None
    kind: str = "operation"
    phase: str | None = "forward"
    layer: str | None = None
    line: str | None = None
    custom_layer: bool | None = None
    custom_gradient: bool = False
    rows: tuple[int, ...] | None = None
    time_step: int | None = None
    detail: str = ""


NOTHING = Expected(kind="nothing")


@dataclass(frozen=True)
class Case:
    make: Callable[[], tuple[Any, Any]]
    expected: Expected
    differs: dict[str, Expected] = field(default_factory=dict)
    """By backend, where the frameworks themselves differ."""

    @property
    def name(self) -> str:
        return self.make.__name__

    def here(self) -> Expected:
        return self.differs.get(BACKEND, self.expected)


class Table:
    """Cases in the order in which they are written down."""

    def __init__(self) -> None:
        self.cases: list[Case] = []

    def case(self, expected: Expected, **differs: Expected) -> Callable[..., Any]:
        def keep(make: Callable[[], tuple[Any, Any]]) -> Callable[[], tuple[Any, Any]]:
            self.cases.append(Case(make, expected, differs))
            return make

        return keep


def at(expected: Expected, **changes: Any) -> Expected:
    return replace(expected, **changes)


def arrays(width: int = 6, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(ROWS, width)).astype("float32")
    return x, generator.normal(size=(ROWS, 1)).astype("float32")


def compiled(model: Any, loss: Any = "mse", **options: Any) -> Any:
    model.compile(options.pop("optimizer", "adam"), loss, **options)
    model.optimizer.build(model.trainable_variables)
    return model


def network(*middle: Any, loss: Any = "mse", **options: Any) -> Any:
    """Six features, eight units, whatever is in the middle, one output."""
    keras.utils.set_random_seed(3)
    head = layers.Dense(1, name="head", dtype="float32")
    model = keras.Sequential([layers.Input((6,)), layers.Dense(8, name="enc"), *middle, layers.Dropout(0.1), head])
    return compiled(model, loss, **options)


def tensors(batch: Any) -> Any:
    """The batch as a train step receives it."""
    return keras.tree.map_structure(keras.ops.convert_to_tensor, batch)


def differences(expected: Expected, origin: Any) -> list[str]:
    """Where a found origin is not the expected one."""
    if expected.kind == "nothing":
        return [] if origin is None else [f"found {origin}"]
    if origin is None:
        return ["nothing found"]
    wrong = []

    def same(name: str, wanted: Any, got: Any) -> None:
        if wanted is not None and wanted != got:
            wrong.append(f"{name}: expected {wanted!r}, found {got!r}")

    same("kind", expected.kind, str(origin.kind.value))
    same("operation", expected.operation, origin.operation)
    same("phase", expected.phase, str(origin.phase.value))
    same("custom layer", expected.custom_layer, origin.module_is_custom)
    same("rows", expected.rows, origin.rows)
    same("time step", expected.time_step, origin.time_step)
    if expected.kind == "operation":
        same("custom gradient", expected.custom_gradient, origin.custom_gradient)
    if expected.layer is not None and (expected.layer not in origin.module or (not expected.layer and origin.module)):
        wrong.append(f"layer: expected {expected.layer!r} in {origin.module!r}")
    text = origin.source.text if origin.source else ""
    if expected.line is not None and (expected.line not in text or (not expected.line and text)):
        wrong.append(f"line: expected {expected.line!r} in {text!r}")
    if expected.detail not in origin.detail:
        wrong.append(f"detail: expected {expected.detail!r} in {origin.detail!r}")
    return wrong
