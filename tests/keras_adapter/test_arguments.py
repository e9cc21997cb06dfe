"""The same words and defaults in every framework."""

import ast
import dataclasses
import inspect
from pathlib import Path

import pytest

import nan_callbacks
from nan_callbacks.core import GuardConfig
from nan_callbacks.errors import ConfigurationError
from nan_callbacks.keras import NaNGuard

LIGHTNING = Path(nan_callbacks.__file__).parent / "lightning" / "guard.py"


def keywords():
    parameters = inspect.signature(NaNGuard.__init__).parameters
    return {name: each.default for name, each in parameters.items() if name != "self"}


def lightning_keywords():
    """Read from the source: the tests of Keras run where Lightning need not be installed."""
    (guard,) = [
        node
        for node in ast.parse(LIGHTNING.read_text(encoding="utf-8")).body
        if isinstance(node, ast.ClassDef) and node.name == "NaNGuard"
    ]
    (init,) = [node for node in guard.body if isinstance(node, ast.FunctionDef) and node.name == "__init__"]
    return {
        argument.arg: ast.literal_eval(default)
        for argument, default in zip(init.args.kwonlyargs, init.args.kw_defaults, strict=True)
    }


def test_the_defaults_are_those_of_the_core():
    settings = {field.name: field.default for field in dataclasses.fields(GuardConfig)}

    assert {name: default for name, default in keywords().items() if name in settings} == settings


def test_the_keywords_are_those_of_the_lightning_callback_in_the_same_order():
    assert list(keywords().items()) == list(lightning_keywords().items())


def test_every_keyword_is_explained():
    text = inspect.getdoc(NaNGuard)

    assert all(f"\n    {name}: " in text for name in keywords())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("lr_factor", 2.0),
        ("log_every_n_steps", 0),
        ("checkpoint_snapshots", "sometimes"),
        ("verbose", "yes"),
    ],
)
def test_a_bad_value_is_named(name, value):
    with pytest.raises(ConfigurationError, match=f"`{name}` must be"):
        NaNGuard(**{name: value})
