"""A saved step: numbers and text only, and the same again when read."""

import json
from collections import namedtuple

import numpy as np
import pytest

from nan_callbacks.diagnosis.saved_step import SavedStep, StoredArray, map_leaves, read_step, write_step
from nan_callbacks.errors import NaNCallbacksError

Pair = namedtuple("Pair", "x y")


def array(*values, dtype="float32"):
    return StoredArray(np.array(values, dtype=dtype), dtype)


def test_every_structure_comes_back(tmp_path):
    batch = {"x": array(1.0, np.nan, np.inf), 3: [array(1, dtype="int64"), (None, True, "text", 0.1, float("nan"))],
             "pair": Pair(array(2.0), -1)}  # fmt: skip
    step = SavedStep(
        batches=[batch], batch_indices=[4], weights={"w": array(1.0)}, facts={"step": 9, "loss": float("nan")}
    )
    write_step(tmp_path / "a" / "b", step)
    read = read_step(tmp_path / "a" / "b")

    first = map_leaves(read.batches[0], lambda leaf: leaf.values.tolist())
    assert list(first) == ["x", 3, "pair"]
    assert repr(first["x"]) == "[1.0, nan, inf]"
    assert first[3][0] == [1]
    assert repr(first[3][1]) == "(None, True, 'text', 0.1, nan)"
    assert (first["pair"].x, first["pair"].y) == ([2.0], -1)
    assert read.batch_indices == [4]
    assert read.weights["w"].dtype == "float32"
    assert read.facts["step"] == 9


def test_what_cannot_be_written_is_named(tmp_path):
    write_step(tmp_path, SavedStep(batches=[{"x": array(1.0), "f": print}]))
    read = read_step(tmp_path)
    assert read.left_out == ["batches[0]['f']: builtin_function_or_method"]
    assert read.batches[0]["f"] is None


def test_nothing_is_pickled(tmp_path):
    write_step(tmp_path, SavedStep(batches=[array(1.0)]))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["arrays.npz", "step.json"]
    with np.load(tmp_path / "arrays.npz", allow_pickle=False) as arrays:
        assert [arrays[name].tolist() for name in arrays.files] == [[1.0]]
    json.loads((tmp_path / "step.json").read_text(encoding="utf-8"), parse_constant=pytest.fail)


def test_a_folder_that_holds_no_step_says_so(tmp_path):
    with pytest.raises(NaNCallbacksError, match=r"holds no saved step \(step\.json is missing\)"):
        read_step(tmp_path)
    (tmp_path / "step.json").write_text("{", encoding="utf-8")
    with pytest.raises(NaNCallbacksError, match="cannot be read"):
        read_step(tmp_path)
    (tmp_path / "step.json").write_text('{"layout": 99}', encoding="utf-8")
    with pytest.raises(NaNCallbacksError, match=r"expected a saved step of layout 1 .* received 99"):
        read_step(tmp_path)
