"""Facts of healthy runs, made up; the tests spoil one thing at a time."""

from dataclasses import replace
from typing import Any

import numpy as np

from nan_callbacks.checkup.facts import CheckupFacts, Hazard, InputFacts, LayerFacts, Lookup, LossFacts, RateFacts
from nan_callbacks.checkup.rules import judge
from nan_callbacks.core.tensor_summary import TensorSummary
from nan_callbacks.diagnosis.origin import SourceLine

ROWS = 64


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    """Standard normal numbers."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def numbers(values: Any, **more: Any) -> InputFacts:
    """An input that is multiplied by weights as it is."""
    return InputFacts(**{"name": "batch[0]", "values": np.asarray(values), "use": "numbers", **more})


def indices(values: Any, table_rows: int | None = 10, **more: Any) -> InputFacts:
    """An input that looks rows of a table up."""
    values = np.asarray(values)
    lookups = () if table_rows is None else (Lookup(table="words", rows=table_rows, values=values),)
    return InputFacts(
        **{"name": "tokens", "values": values, "use": "indices", "first_layer": "words", "lookups": lookups, **more}
    )


def classification(targets: Any = None, classes: int = 4, **more: Any) -> LossFacts:
    """Logits beside class indices."""
    targets = np.arange(ROWS) % classes if targets is None else np.asarray(targets)
    told = {
        "kind": "cross_entropy",
        "from_logits": True,
        "predictions": normal(len(targets) if targets.ndim else 1, classes),
        "targets": targets,
        "all_targets": targets,
        "class_axis": 1,
        "activation": "linear",
        "name": "cross_entropy",
    }
    return LossFacts(**{**told, **more})


def regression(targets: Any = None, **more: Any) -> LossFacts:
    """Outputs and targets of scale 1."""
    targets = normal(ROWS, 1) if targets is None else np.asarray(targets)
    told = {
        "kind": "squared_error",
        "predictions": normal(*targets.shape, seed=1),
        "targets": targets,
        "activation": "linear",
        "name": "mse_loss",
    }
    return LossFacts(**{**told, **more})


def layer(depth: int = 0, **more: Any) -> LayerFacts:
    """A hidden layer that keeps signal and gradient as they are."""
    told = {
        "name": f"layer{depth}",
        "kind": "Linear",
        "depth": depth,
        "has_weights": True,
        "in_std": 1.0,
        "out_std": 1.0,
        "grad_out_std": 1e-3,
        "weight_scale": 1.0,
    }
    return LayerFacts(**{**told, **more})


def layers(count: int = 4, growth: float = 1.0, gradient: float = 1.0) -> tuple[LayerFacts, ...]:
    """Hidden layers and an output.

    Args:
        count: Hidden layers.
        growth: Factor of the signal per layer.
        gradient: Factor of the gradient per layer, backwards.
    """
    hidden = [
        layer(
            at,
            in_std=growth**at,
            out_std=growth ** (at + 1),
            weight_scale=growth,
            grad_out_std=1e-3 * gradient ** (count - 1 - at),
        )
        for at in range(count)
    ]
    return (*hidden, layer(count, name="head", is_output=True))


def activation(depth: int, kind: str, **more: Any) -> LayerFacts:
    """An activation without weights."""
    return LayerFacts(name=f"{kind}{depth}", kind=kind, depth=depth, **more)


def hazard(operation: str = "log", values: Any = (0.0, 1.0), line: int = 3, **more: Any) -> Hazard:
    """An operation near its edge."""
    told = {
        "operation": operation,
        "kind": "near_zero",
        "module": "net.head",
        "source": SourceLine(file="train.py", line=line, function="forward"),
        "operand": TensorSummary.of(np.asarray(values, np.float32)),
    }
    return Hazard(**{**told, **more})


def rate(*losses: tuple[float, ...], factors: tuple[float, ...] | None = None, **more: Any) -> RateFacts:
    """Trials of a rate of 0.1 with factors 1, 0.1, 0.01 … unless others are given."""
    factors = tuple(10.0**-at for at in range(len(losses))) if factors is None else factors
    return RateFacts(**{"learning_rate": 0.1, "factors": factors, "losses": losses, "optimizer": "SGD", **more})


def healthy(**more: Any) -> CheckupFacts:
    """A classifier of standardised columns in which nothing is wrong."""
    told = {
        "framework": "torch",
        "inputs": (numbers(normal(ROWS, 8)),),
        "losses": (classification(),),
        "layers": layers(),
        "rate": rate((1.4, 1.3, 1.2, 1.1, 1.0)),
        "rows_read": ROWS,
    }
    return CheckupFacts(**{**told, **more})


def said(facts: CheckupFacts, *ignore: str) -> list[tuple[str, str]]:
    """Code and kind of each notice."""
    return [(notice.code, notice.kind) for notice in judge(facts, ignore)]


def of_input(facts: InputFacts, rows_read: int | None = None) -> list[tuple[str, str]]:
    """What is said about one input of an otherwise healthy run."""
    rows = (len(facts.values) if facts.values.ndim else 1) if rows_read is None else rows_read
    return said(healthy(inputs=(facts,), losses=(), rows_read=rows))


def of_loss(facts: LossFacts) -> list[tuple[str, str]]:
    """What is said about one loss of an otherwise healthy run."""
    return said(healthy(inputs=(), losses=(facts,)))


def of_layers(*facts: LayerFacts) -> list[tuple[str, str]]:
    """What is said about some layers of an otherwise healthy run."""
    return said(healthy(layers=facts))


def without_all_rows(loss: LossFacts) -> LossFacts:
    """Only the targets of one batch are known."""
    return replace(loss, all_targets=None)
