"""Copies of one sample with different labels."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nan_callbacks.checkup.contradictions import contradictions
from tests.checkup.facts import classification, healthy, indices, normal, numbers

CONTRADICTORY = [("DATA504", "contradictory_copies")]


def told(values, labels, *others, **more):
    loss = classification(np.asarray(labels), **more)
    inputs = (numbers(values), *others)
    return [(notice.code, notice.kind) for notice in contradictions(healthy(inputs=inputs, losses=(loss,)))]


def with_copies(count=10, rows=200):
    values = normal(rows, 6)
    values[:count] = values[rows - count :]
    return values


def labels_of(values):
    return (values[:, 0] > 0).astype(int) + 2 * (values[:, 1] > 0)


@given(count=st.integers(2, 40), seed=st.integers(0, 100))
def test_copies_with_other_labels_are_always_found(count, seed):
    values = with_copies(count)
    labels = labels_of(values)
    labels[:count] = (labels[:count] + 1) % 4
    order = np.random.default_rng(seed).permutation(len(values))
    assert told(values[order], labels[order]) == CONTRADICTORY


@pytest.mark.parametrize("count", [2, 40])
def test_copies_with_the_same_label_are_healthy(count):
    values = with_copies(count)
    assert told(values, labels_of(values)) == []


def test_rows_and_labels_are_named():
    values = with_copies(2)
    labels = labels_of(values)
    labels[:2] = (labels[198:] + 1) % 4
    loss = classification(labels)
    (notice,) = contradictions(healthy(inputs=(numbers(values),), losses=(loss,)))
    assert notice.where == "targets of cross_entropy"
    assert f"rows 0 and 198 have the labels {labels[0]}, {labels[198]}" in notice.evidence[0]


def test_a_single_contradiction_is_chance():
    values = with_copies(1)
    labels = labels_of(values)
    labels[0] = (labels[0] + 1) % 4
    assert told(values, labels) == []


def test_one_in_fifty_copies_is_noise():
    values = with_copies(100, 400)
    labels = labels_of(values)
    labels[:2] = (labels[:2] + 1) % 4
    assert told(values, labels) == []


@given(values=st.integers(2, 4), columns=st.integers(1, 6), seed=st.integers(0, 200))
def test_coarse_columns_hold_equal_rows_by_chance(values, columns, seed):
    generator = np.random.default_rng(seed)
    rows = generator.integers(0, values, (300, columns)).astype(np.float32)
    assert told(rows, generator.integers(0, 4, 300)) == []


def test_one_hot_labels_are_compared_as_a_whole():
    values = with_copies()
    labels = labels_of(values)
    hot = np.eye(4, dtype=np.float32)[labels]
    assert told(values, hot, kind="soft_cross_entropy") == []
    hot[:10] = np.roll(hot[:10], 1, axis=1)
    assert told(values, hot, kind="soft_cross_entropy") == CONTRADICTORY


def test_a_second_input_tells_copies_apart():
    values = with_copies()
    labels = labels_of(values)
    labels[:10] = (labels[:10] + 1) % 4
    assert told(values, labels, indices(np.arange(200))) == []
    assert told(values, labels, indices(np.zeros(200, int))) == CONTRADICTORY


def test_regressions_may_be_noisy():
    values = with_copies()
    outcome = values.sum(1)
    assert told(values, outcome + 0.2 * outcome.std() * normal(200), kind="squared_error") == []


def test_copies_whose_numbers_have_nothing_to_do_with_each_other_are_told():
    assert told(with_copies(), normal(200), kind="squared_error") == CONTRADICTORY


def test_minus_zero_is_zero():
    values = with_copies()
    values[:10, 3], values[190:, 3] = 0.0, -0.0
    labels = labels_of(values)
    labels[:10] = (labels[:10] + 1) % 4
    assert told(values, labels) == CONTRADICTORY


@pytest.mark.parametrize("values", [normal(64, 8)[:50], normal(64, 8).astype(object), np.full((64, 8), np.nan)])
def test_rows_that_cannot_be_compared_say_nothing(values):
    assert told(values, np.arange(64) % 4) == []


@pytest.mark.parametrize("shape", [(0, 3), (0,), (64, 0), (1, 3), (64,)])
def test_next_to_nothing_says_nothing(shape):
    values = np.zeros(shape, np.float32)
    assert told(values, np.arange(len(values)) % 4) == []


def test_names_as_labels_do_no_harm():
    values = with_copies()
    told(values, np.array(["cat", "dog"] * 100))


def test_columns_are_not_counted_where_no_row_occurs_twice(monkeypatch):
    """Each pixel of an image is a column: counting the values of all of them takes longer than reading them."""
    counted = []

    def unique(*given, **options):
        counted.append(given)
        return real(*given, **options)

    real = np.unique
    monkeypatch.setattr(np, "unique", unique)
    assert told(normal(32, 3 * 32 * 32), np.arange(32) % 4) == []
    assert len(counted) < 100
