"""The cases, the arguments and the framework that a function belongs to; no framework is needed for that."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from nan_callbacks.errors import ConfigurationError
from nan_callbacks.layer_check.calling import arguments
from nan_callbacks.layer_check.cases import CASES, build
from nan_callbacks.layer_check.spec import InputSpec, signature_of

KINDS = ("numbers", "positive", "probabilities", "mask", "indices")
ROOT = Path(__file__).parents[2]


def built(kind, shape=(4, 6), **options):
    signature = signature_of(InputSpec(shape, kind=kind, **options))
    made = {case.name: build(case, signature, seed=3) for case in CASES}
    return {name: arrays["input"] for name, arrays in made.items() if arrays is not None}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(4, 6), (1, 1), (4,), (2, 3, 4, 5)])
def test_every_case_is_finite_and_has_its_shape(kind, shape):
    for name, array in built(kind, shape, high=7).items():
        assert np.isfinite(array).all(), name
        assert array.shape == ((1, *shape[1:]) if name == "one-element batch" else shape)
        assert array.dtype == ("int64" if kind == "indices" else "float32")


def test_kinds_keep_what_they_promise():
    assert all((array > 0).all() for array in built("positive").values())
    assert all(np.allclose(array.sum(-1), 1) and (array >= 0).all() for array in built("probabilities").values())
    assert all(np.isin(array, (0, 1)).all() for array in built("mask").values())
    assert all(((array >= 0) & (array < 5)).all() for array in built("indices", high=5).values())


def test_cases_are_what_they_are_called():
    numbers = built("numbers")
    tiny, largest = np.finfo("float32").tiny, np.finfo("float32").max

    assert (np.abs(numbers["denormals"]) < tiny).all()
    assert numbers["denormals"].all()
    assert (np.abs(numbers["largest finite"]) == largest).all()
    assert not numbers["constant rows"].std(-1).any()
    assert not numbers["repeated rows"].std(0).any()
    assert (numbers["alternating signs"][:, :-1] * numbers["alternating signs"][:, 1:] < 0).all()
    assert not built("mask")["all-masked row"][0].any()
    assert built("mask")["all-masked row"][1:].any(-1).all()


def test_cases_without_meaning_are_left_out():
    assert "zeros" not in built("positive")
    assert "empty mask" not in built("numbers")
    assert set(built("mask")) == {
        "ordinary noise", "one-element batch", "empty mask", "all-masked row", "full mask"
    }  # fmt: skip


def test_names_come_from_role_and_position():
    signature = signature_of([(4, 6), InputSpec((4,), name="length")], (4, 2))

    assert [spec.name for spec in signature.specs] == ["input[0]", "length", "target"]


@pytest.mark.parametrize("options", [{"kind": "words"}, {"shape": ()}])
def test_a_wrong_spec_is_refused(options):
    with pytest.raises(ConfigurationError, match="must be"):
        InputSpec(**{"shape": (4,), **options})


def test_arguments_follow_the_signature_of_the_layer():
    two = signature_of([(4, 6), (4, 6)])
    values = {"input[0]": 1, "input[1]": 2}

    assert arguments(None, lambda a, b: 0, two, values) == ((1, 2), {})
    assert arguments(None, lambda a, mask=None: 0, two, values) == ((1, 2), {})
    assert arguments(None, lambda inputs, training=None: 0, two, values) == (([1, 2],), {})
    assert arguments(None, lambda inputs, mask=None, training=None: 0, two, values) == (([1, 2],), {})
    assert arguments(None, lambda inputs, hidden: 0, two, values) == ((1, 2), {})
    named = signature_of({"a": (4, 6), "b": (4, 6)})
    assert arguments(None, lambda a, b: 0, named, {"a": 1, "b": 2}) == ((), {"a": 1, "b": 2})
    assert arguments(None, lambda inputs: 0, named, {"a": 1, "b": 2}) == (({"a": 1, "b": 2},), {})
    loss = signature_of((4, 6), (4, 6))
    assert arguments(None, lambda y_true, y_pred: 0, loss, {"input": 1, "target": 2}) == ((2, 1), {})


def python(code: str, *arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    return subprocess.run(
        [sys.executable, *arguments, *(["-c", code] if code else [])],
        env=environment,
        cwd=cwd,
        capture_output=True,
        text=True,
    )


def test_importing_the_bench_loads_no_framework():
    loaded = python("import sys, nan_callbacks.layer_check; print({'torch', 'keras', 'jax'} & set(sys.modules))")

    assert loaded.stdout.strip() == "set()", loaded.stderr


@pytest.mark.slow
def test_the_fixture_of_the_plugin(tmp_path):
    (tmp_path / "test_mine.py").write_text(
        "import torch\n"
        "def test_good(numerically_safe):\n    numerically_safe(torch.nn.Linear(3, 2), (4, 3))\n"
        "def test_bad(numerically_safe):\n    numerically_safe(lambda x: torch.sqrt(x), (4, 3))\n"
    )
    options = ("-m", "pytest", "-q", "-p", "no:cacheprovider")  # the plugin is an entry point of the package

    finished = python("", *options, cwd=tmp_path)

    assert "1 failed, 1 passed" in finished.stdout, finished.stdout + finished.stderr
    assert "in sqrt" in finished.stdout
