import pytest

from nan_callbacks.demo.faults import FAULTS
from nan_callbacks.demo.table import actions, lost_steps, render
from tests.demo.outcomes import QUIET, incident, outcome, rollback


def test_the_table_shows_the_three_accuracies_and_what_the_guard_did():
    events = [incident(100), incident(252)]
    table = render([outcome(events=events, incidents=2, skipped_steps=2)]).splitlines()

    assert table[0].split("  ")[0] == "fault"
    assert set(table[1]) == {"-"}
    assert table[2].split() == (
        "rows with NaN 10.0 % 98.0 % 99.0 % 2 2 skips 2 of 504".split()
    )  # fmt: skip


def test_columns_line_up():
    lines = render([outcome(name, incidents=number) for number, name in enumerate(FAULTS, start=9)]).splitlines()
    end_of_incidents = lines[0].index("incidents") + len("incidents")

    assert [line[:end_of_incidents].split()[-1] for line in lines[2:]] == ["9", "10", "11"]
    assert len({line.index("of 504") for line in lines[2:]}) == 1


def test_the_fullest_table_fits_a_hundred_columns():
    full = outcome(
        "scaled_samples", events=[rollback(503, 0)], incidents=120, skipped_steps=99, rollbacks=10, lr_cuts=10,
        stopped=True, stop_reason="it went on",
    )  # fmt: skip

    assert max(map(len, render([full]).splitlines())) <= 100


@pytest.mark.parametrize(
    ("summary", "words"),
    [
        ({}, "nothing"),
        ({"skipped_steps": 1}, "1 skip"),
        ({"skipped_steps": 4, "rollbacks": 1, "lr_cuts": 2}, "4 skips, 1 rollback, 2 lr cuts"),
        ({"rollbacks": 3, "stopped": True}, "3 rollbacks, stopped"),
    ],
)
def test_actions_are_counted_in_words(summary: dict, words: str):
    assert actions({**QUIET, **summary}) == words


def test_a_step_counts_as_lost_once_however_often_it_is_undone():
    events = [incident(203), incident(204), rollback(205, 150), rollback(210, 150), incident(300)]

    assert lost_steps(events) == len({*range(150, 211), 300})


def test_an_incident_that_was_only_observed_costs_nothing():
    assert lost_steps([{**incident(7), "skipped": False}, {"event": "summary", "step": 503}]) == 0


def test_two_findings_about_one_step_are_one_lost_step():
    assert lost_steps([incident(7), {**incident(7), "code": "LOSS401"}]) == 1
