"""Samples that are ordinary as they come, and huge behind the model's own normalisation."""

import numpy as np
import pytest

from nan_callbacks.checkup import magnified
from nan_callbacks.checkup.magnified import magnified_parts
from tests.checkup.facts import normal, numbers

RAW = np.abs(normal(16, 4))


def large(values, row=3, factor=1e4):
    changed = values.copy()
    changed[row] *= factor
    return changed


def test_a_row_that_a_preparation_has_made_large():
    (part,) = magnified_parts([numbers(RAW, first_layer="dense", received=large(RAW))], len(RAW))
    assert part.outlier_rows == (3,)
    assert part.outlier_ratio > 1e3
    assert part.failed.name == "batch[0], as dense receives it,"


@pytest.mark.parametrize(
    "facts",
    [
        numbers(RAW, first_layer="dense", received=RAW),
        numbers(large(RAW), first_layer="dense", received=large(RAW)),  # it was large before: the data tell that
        numbers(RAW),
        numbers(RAW, use="target", received=large(RAW)),
        numbers(RAW[:3], received=large(RAW[:3], row=1)),
        numbers(RAW.astype("int64").astype("U"), received=large(RAW)),
    ],
    ids=["nothing", "before", "unseen", "target", "few rows", "text"],
)
def test_what_is_none(facts):
    assert magnified_parts([facts], len(facts.values)) == ()


def test_the_failed_batch_comes_first_among_the_rows_that_were_read():
    every = np.concatenate([RAW, large(RAW)])
    assert len(magnified_parts([numbers(every, first_layer="dense", received=large(RAW))], len(RAW))) == 1


def test_ordinary_samples_are_measured_once(monkeypatch):
    measured = []
    monkeypatch.setattr(magnified, "outlying_rows", lambda values, past: measured.append(values) or ((), 1.0))
    assert magnified_parts([numbers(RAW, first_layer="dense", received=RAW)], len(RAW)) == ()
    assert len(measured) == 1


def test_points_in_time_are_no_samples():
    # Four samples of four points each, which a layer receives one below the other, beside the rows of recent batches.
    every = np.abs(normal(32, 4, 4))
    facts = numbers(every, first_layer="dense", received=large(every[:4].reshape(16, 4), row=9))
    assert magnified_parts([facts], 4) == ()
