"""Group testing: the guilty rows are found in few runs of the step, or nobody is accused."""

import itertools

import pytest

from nan_callbacks.diagnosis.bisection import guilty_rows


def fails_with(*guilty):
    return lambda rows: not set(rows) & set(guilty)


@pytest.mark.parametrize("guilty", [(0,), (15,), (3, 9), (4, 5, 6), (0, 7, 8, 15)])
def test_finds_the_guilty_rows(guilty):
    found = guilty_rows(fails_with(*guilty), 16)

    assert found.rows == guilty
    assert found.confirmed
    assert found.note == ""


@pytest.mark.parametrize("row", range(64))
def test_one_row_of_many_takes_few_trials(row):
    found = guilty_rows(fails_with(row), 64)

    assert found.rows == (row,)
    assert found.trials <= 2 * 6 + 2


def test_suspects_of_the_tracer_take_hardly_any():
    found = guilty_rows(fails_with(17), 64, suspects=[17])

    assert found.rows == (17,)
    assert found.confirmed
    assert found.trials == 2


def test_innocent_suspects_are_cleared():
    assert guilty_rows(fails_with(3), 16, suspects=[3, 4]).rows == (3,)
    assert guilty_rows(fails_with(3), 16, suspects=[8]).rows == (3,)


def test_nobody_is_accused_when_every_row_fails():
    found = guilty_rows(lambda rows: False, 16)

    assert found.rows == ()
    assert not found.confirmed
    assert "More than 4 of 16" in found.note


def test_nobody_is_accused_when_rows_fail_only_together():
    found = guilty_rows(lambda rows: len(rows) < 12, 16)

    assert found.rows == ()
    assert "together" in found.note


def test_nobody_is_accused_of_a_finite_step():
    found = guilty_rows(lambda rows: True, 16)

    assert (found.rows, found.trials) == ((), 1)
    assert "finite with all rows" in found.note


def test_a_pair_that_fails_only_together_is_not_half_accused():
    found = guilty_rows(lambda rows: not {2, 13} <= set(rows), 16)

    assert found.rows == ()


@pytest.mark.parametrize("row", [0, 1, 7, 15])
def test_a_step_that_cannot_run_on_one_row_gets_companions(row):
    def batch_norm(rows):
        return None if len(rows) < 2 else row not in rows

    found = guilty_rows(batch_norm, 16)

    assert found.rows == (row,)
    assert found.confirmed


def test_the_number_of_trials_is_bounded():
    calls = itertools.count()

    def step(rows):
        next(calls)
        return len(rows) == 1

    found = guilty_rows(step, 256, max_trials=20, max_guilty=256)

    assert found.trials == 20
    assert next(calls) == 20
    assert found.rows == ()
    assert "Given up" in found.note


def test_a_batch_of_one_row_cannot_be_divided():
    assert guilty_rows(fails_with(0), 1).rows == ()
