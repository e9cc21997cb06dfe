"""Samples that are ordinary as they come, and huge behind the model's own normalisation."""

import numpy as np
import pytest

from nan_callbacks.checkup.magnified import magnified_parts
from tests.checkup.facts import normal, numbers

RAW = np.abs(normal(16, 4))


def large(values, row=3, factor=1e4):
    changed = values.copy()
    changed[row] *= factor
    return changed


def test_a_row_that_a_preparation_has_made_large():
    (part,) = magnified_parts([numbers(RAW, first_layer="dense", received=large(RAW))])
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
    assert magnified_parts([facts]) == ()


def test_the_failed_batch_comes_first_among_the_rows_that_were_read():
    every = np.concatenate([RAW, large(RAW)])
    assert len(magnified_parts([numbers(every, first_layer="dense", received=large(RAW))])) == 1
