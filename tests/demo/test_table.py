from nan_callbacks.demo.faults import FAULTS
from nan_callbacks.demo.table import lost_steps, render
from tests.demo.outcomes import incident, outcome, rollback


def test_the_table_shows_the_three_accuracies_and_what_the_guard_did():
    events = [incident(203), incident(204), rollback(205, 150)]
    table = render([outcome(events=events, incidents=4, skipped_steps=3, rollbacks=1, lr_cuts=2)]).splitlines()

    headings = "fault unguarded guarded undisturbed incidents skips rollbacks lr cuts steps lost"
    assert " ".join(table[0].split()) == headings
    assert set(table[1]) == {"-"}
    assert " ".join(table[2].split()) == "rows with NaN 10.0 % 98.0 % 99.0 % 4 3 1 2 56"


def test_columns_line_up():
    lines = render([outcome(name, incidents=number) for number, name in enumerate(FAULTS, start=9)]).splitlines()
    end_of_incidents = lines[0].index("incidents") + len("incidents")

    assert [line[:end_of_incidents].split()[-1] for line in lines[2:]] == ["9", "10", "11"]
    assert len({len(line) for line in lines}) == 1


def test_two_frameworks_share_one_table_each_under_its_name():
    table = render(
        [
            outcome("nan_rows", incidents=1),
            outcome("learning_rate", incidents=2),
            outcome("nan_rows", framework="Keras on JAX", incidents=3),
        ]
    ).splitlines()

    assert [line.split("  ")[0] or line.split()[0] for line in table[2:]] == [
        "Lightning", "rows", "learning", "Keras on JAX", "rows",
    ]  # fmt: skip
    rows = [line for line in table[2:] if line.startswith(" ")]
    assert [row.replace(" %", "").split()[-5] for row in rows] == ["1", "2", "3"]
    assert {len(row) for row in rows} == {len(table[0])}


def test_the_fullest_table_fits_a_hundred_columns():
    fullest = [
        outcome(
            name,
            framework=framework,
            events=[rollback(9999, 0)],
            incidents=9999,
            skipped_steps=9999,
            rollbacks=99,
            lr_cuts=99,
        )
        for framework in ("Lightning", "Keras on TensorFlow")
        for name in FAULTS
    ]

    assert max(map(len, render(fullest).splitlines())) <= 100


def test_a_step_counts_as_lost_once_however_often_it_is_undone():
    events = [incident(203), incident(204), rollback(205, 150), rollback(210, 150), incident(300)]

    assert lost_steps(events) == len({*range(150, 211), 300})


def test_an_incident_that_was_only_observed_costs_nothing():
    assert lost_steps([{**incident(7), "skipped": False}, {"event": "summary", "step": 503}]) == 0


def test_two_findings_about_one_step_are_one_lost_step():
    assert lost_steps([incident(7), {**incident(7), "code": "LOSS401"}]) == 1
