"""Samples that are as large as others and unlike all of them: their labels may be right."""

import math

import numpy as np
import pytest

from nan_callbacks.core.tensor_summary import TensorSummary
from nan_callbacks.diagnosis.evidence import BatchPart, History, Role
from nan_callbacks.diagnosis.hypotheses import hypothesise
from nan_callbacks.diagnosis.unlike import unlike_rows
from tests.diagnosis.test_diagnose import labels_of, seen, spike


def pictures(rows: int, seed: int) -> np.ndarray:
    """Bright in the middle, black at the border."""
    rng = np.random.default_rng(seed)
    bright = np.exp(-((np.arange(64) - 32.0) ** 2) / 200)
    return np.clip(bright * rng.uniform(0.5, 1.0, (rows, 1)) + 0.1 * rng.normal(size=(rows, 64)), 0, 1)


PAST = [pictures(32, seed) for seed in range(8)]


def test_inverted_pictures_are_unlike_all_before_and_within_their_range():
    batch = pictures(32, 9)
    assert unlike_rows(batch, PAST) == ()
    batch[[3, 7]] = 1.0 - batch[[3, 7]]
    assert unlike_rows(batch, PAST) == (3, 7)
    assert unlike_rows(1.0 - pictures(32, 9), PAST) == tuple(range(32))


def test_rare_words_are_not():
    rng = np.random.default_rng(0)
    bags = [(rng.uniform(size=(32, 500)) < rng.uniform(0, 0.02, 500)).astype(float) for _ in range(9)]
    assert unlike_rows(bags[-1], bags[:-1]) == ()


@pytest.mark.parametrize("rows", [(), (4,)])
@pytest.mark.parametrize("unlike", [False, True])
def test_labels_of_samples_that_the_model_does_not_know_are_likely_wrong_at_most(rows, unlike):
    failed = TensorSummary(name="x", shape=(16, 64), dtype="float32", minimum=0.0, maximum=1.0)
    strange = (rows or tuple(range(16))) if unlike else ()
    inputs = BatchPart(role=Role.INPUT, failed=failed, recent=failed, unlike_rows=strange)
    history = History(losses=(0.2 * math.log(4.0),) * 50, grad_norms=(1.0,) * 50)
    about = {"batch": (inputs, labels_of(0.0, 3.0)), "guilty_rows": rows, "classifies": True}
    evidence = spike(history=history, seen=seen(loss=30.0, grad_norm=1e4), **about)
    (found,) = [each for each in hypothesise(evidence) if each.code == "DATA504"]
    assert found.circumstantial is unlike
