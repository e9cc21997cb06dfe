"""Event records: strict JSON Lines, and the sentence that people read."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nan_callbacks.core import Action, Decision, Finding, Severity, StepObservation
from nan_callbacks.core.events import SCHEMA, describe, from_json_line, read_events, step_events, to_json_line
from nan_callbacks.core.sentences import number

SEEN = StepObservation(
    step=1042, epoch=3, batch_index=17, loss=0.5, grad_norm=812.0, learning_rates=(3e-4,), applied=False
)
FINDING = Finding(
    code="GRAD201",
    title="exploding gradient",
    step=1042,
    epoch=3,
    batch_index=17,
    severity=Severity.WARNING,
    action=Action.SKIP_STEP,
    where="decoder.weight",
    quantity="grad_norm",
    value=812.0,
    limit=9.4,
    robust_z=71.2,
)
ROLLBACK = Decision(
    action=Action.ROLLBACK,
    findings=(FINDING,),
    reason="3 steps in a row were dropped",
    lr_scale=0.125,
    lr_cut=0.25,
    restore_slot=1,
    restore_step=1000,
)
LEVEL = Decision(action=Action.SKIP_STEP, reason="the data have changed", level_accepted=True)
RECOVERED = Decision(action=Action.OBSERVE, lr_recovered=True)
STOP = Decision(action=Action.STOP, reason="3 rollback(s) brought no progress", restore_slot=0, restore_step=950)

SENTENCES = [
    (
        Decision(action=Action.SKIP_STEP, findings=(FINDING,)),
        "step 1042 · GRAD201 exploding gradient · decoder.weight · grad_norm 812, limit 9.4 (71 robust σ)"
        " → skipped, batch 17 of epoch 3",
    ),
    (ROLLBACK, "step 1042 · rolled back to the state before step 1000 · 3 steps in a row were dropped"),
    (ROLLBACK, "step 1042 · learning rate × 0.25, now 0.125 of its schedule"),
    (
        LEVEL,
        "step 1042 · new level accepted as normal · the data have changed · learning rate 1 of its schedule",
    ),
    (RECOVERED, "step 1042 · learning rate back on its schedule"),
    (
        STOP,
        "step 1042 · stopped: 3 rollback(s) brought no progress · weights restored to the state before step 950",
    ),
]
KINDS = ["incident", "rollback", "reduce_lr", "level_accepted", "lr_recovered", "stop"]


def strict(line: str) -> Any:
    """What a strict reader makes of a line: the bare words NaN and Infinity are no JSON."""

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is no JSON")

    return json.loads(line, parse_constant=refuse)


# -- what is recorded --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "decision", "sentence"), [(k, *s) for k, s in zip(KINDS, SENTENCES, strict=True)])
def test_the_sentence_of_an_event_reads(kind: str, decision: Decision, sentence: str):
    (event,) = [event for event in step_events(SEEN, decision) if event["event"] == kind]

    assert event["message"] == sentence
    assert describe(event) == sentence
    assert describe(from_json_line(to_json_line(event))) == sentence


def test_a_rollback_leaves_the_finding_the_rollback_and_the_cut():
    events = step_events(SEEN, ROLLBACK, rank=2)

    assert [event["event"] for event in events] == ["incident", "rollback", "reduce_lr"]
    for event in events:
        assert {"schema": SCHEMA, "rank": 2, "step": 1042, "epoch": 3, "batch_index": 17}.items() <= event.items()
        assert {"optimizer": 0, "loss": 0.5, "grad_norm": 812.0}.items() <= event.items()
    assert events[1]["restored_step"] == 1000
    assert (events[2]["factor"], events[2]["lr_scale"], events[2]["learning_rates"]) == (0.25, 0.125, [3e-4])


def test_an_incident_holds_everything_about_its_finding():
    (event,) = step_events(SEEN, Decision(action=Action.SKIP_STEP, findings=(FINDING,)))

    expected = {
        "event": "incident",
        "code": "GRAD201",
        "title": "exploding gradient",
        "where": "decoder.weight",
        "quantity": "grad_norm",
        "value": 812.0,
        "limit": 9.4,
        "robust_z": 71.2,
        "severity": "warning",
        "detail": "",
        "also": [],
        "skipped": True,
        "action": "skip_step",
    }
    assert expected.items() <= event.items()


def test_a_quiet_step_leaves_no_event():
    assert step_events(SEEN, Decision(action=Action.OBSERVE)) == []


def test_several_findings_are_one_incident_named_after_the_gravest():
    other = replace(FINDING, code="LOSS401", title="loss spike")

    (event,) = step_events(SEEN, Decision(action=Action.SKIP_STEP, findings=(FINDING, other)))

    assert (event["code"], event["also"]) == ("GRAD201", ["LOSS401"])
    assert event["message"].startswith("step 1042 · GRAD201 exploding gradient (also LOSS401) · ")


@pytest.mark.parametrize(
    ("action", "applied", "outcome"),
    [
        (Action.OBSERVE, True, "observed"),
        (Action.SKIP_STEP, False, "skipped"),
        (Action.ROLLBACK, False, "rolling back"),
        (Action.STOP, False, "stopping"),
        (Action.STOP, True, "stopping"),
    ],
)
def test_an_incident_says_what_came_of_it(action: Action, applied: bool, outcome: str):
    event = step_events(replace(SEEN, applied=applied), Decision(action=action, findings=(FINDING,)))[0]

    assert event["message"].endswith(f" → {outcome}, batch 17 of epoch 3")
    assert event["skipped"] is not applied


# -- what people read --------------------------------------------------------------------------------------------


def incident(**changes: Any) -> str:
    event = step_events(SEEN, Decision(action=Action.SKIP_STEP, findings=(FINDING,)))[0]
    return describe({**event, "where": "", "limit": None, **changes})


def test_without_a_limit_only_the_value_is_named():
    assert " · grad_norm NaN → skipped" in incident(value=math.nan)


@pytest.mark.parametrize(
    ("distance", "words"),
    [
        (None, ""),
        (math.nan, ""),
        (8.4, " (8 robust σ)"),
        (4e5, " (over 100 robust σ)"),
        (math.inf, ""),
    ],
)
def test_a_distance_is_named_as_far_as_it_says_something(distance: float | None, words: str):
    assert f" · grad_norm 812, limit 9.4{words} → " in incident(limit=9.4, robust_z=distance)


def test_the_growth_of_a_running_variance_is_said_in_words():
    assert "growth of a running variance in one step 812" in incident(quantity="statistics_jump")


def test_the_detail_comes_last():
    assert incident(detail="its gradients are finite").endswith(
        "812 · its gradients are finite → skipped, batch 17 of epoch 3"
    )


def test_non_finite_parameters_have_no_number_to_name():
    assert incident(quantity="parameters", where="a.weight") == (
        "step 1042 · GRAD201 exploding gradient · a.weight → skipped, batch 17 of epoch 3"
    )


def test_a_stop_without_a_snapshot_restores_nothing():
    (event,) = step_events(SEEN, Decision(action=Action.STOP, reason="there is no snapshot"))

    assert event["message"] == "step 1042 · stopped: there is no snapshot"


def test_an_unknown_event_is_described_by_its_own_message_or_name():
    assert describe({"event": "summary", "message": "summary · 10 steps"}) == "summary · 10 steps"
    assert describe({"event": "later_invention", "step": 3}) == "step 3 · later_invention"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "unknown"),
        (math.nan, "NaN"),
        (math.inf, "Inf"),
        (-math.inf, "-Inf"),
        (812.04, "812"),
        (0.00012345, "0.000123"),
        (1.5e9, "1.5e+09"),
        (0.0, "0"),
    ],
)
def test_numbers_have_three_digits_and_non_finite_ones_a_name(value, text):
    assert number(value) == text


# -- JSON Lines --------------------------------------------------------------------------------------------------


FLOATS = st.floats(allow_nan=True, allow_infinity=True)
EVENTS = st.dictionaries(
    st.sampled_from(["loss", "grad_norm", "value", "limit", "learning_rates", "step", "optimizer"]),
    st.one_of(FLOATS, st.lists(FLOATS, max_size=3), st.integers(), st.none(), st.booleans()),
)


@given(event=EVENTS, text=st.text())
def test_an_event_survives_its_line(event, text):
    event = {**event, "message": text, "where": text}

    line = to_json_line(event)

    assert "\n" not in line
    assert strict(line).keys() == event.keys()
    assert repr(from_json_line(line)) == repr(event)  # NaN equals NaN in text only


@given(text=st.sampled_from(["NaN", "Infinity", "-Infinity"]))
def test_a_text_that_reads_like_a_number_stays_text(text: str):
    event = {"reason": text, "title": text, "detail": text, "where": text, "message": text}

    assert from_json_line(to_json_line(event)) == event


def test_nested_numbers_are_strict_json_as_well():
    assert strict(to_json_line({"codes": {"a": math.nan, "b": [math.inf, (-math.inf,)]}})) == {
        "codes": {"a": "NaN", "b": ["Infinity", ["-Infinity"]]}
    }


@pytest.mark.parametrize("line", ["[1, 2]", "3", '"text"', "null"])
def test_a_line_that_is_no_object_is_refused(line: str):
    with pytest.raises(ValueError, match=r"^expected a JSON object, received (list|int|str|NoneType)\.$"):
        from_json_line(line)


# -- files -------------------------------------------------------------------------------------------------------


def write(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def test_a_torn_last_line_is_passed_over(tmp_path: Path):
    path = write(tmp_path / "events.jsonl", '{"step": 1}', '{"step": 2}', '{"step": 3, "mess')

    assert read_events(path) == [{"step": 1}, {"step": 2}]


def test_a_line_torn_within_a_letter_is_passed_over(tmp_path: Path):
    path = tmp_path / "events.jsonl"
    path.write_bytes(b'{"step": 1}\n' + '{"message": "2 robust σ'.encode()[:-1])

    assert read_events(path) == [{"step": 1}]


def test_a_broken_line_in_the_middle_is_named(tmp_path: Path):
    path = write(tmp_path / "events.jsonl", '{"step": 1}', '{"step": 2, "me', '{"step": 3}', "")

    with pytest.raises(ValueError, match=r"^line 2 of .*events\.jsonl is not an event: "):
        read_events(path)


@pytest.mark.parametrize("content", ["", "\n", "\n\n"])
def test_an_empty_file_holds_no_events(tmp_path: Path, content: str):
    path = tmp_path / "events.jsonl"
    path.write_text(content, encoding="utf-8")

    assert read_events(path) == []


def test_blank_lines_at_the_end_do_not_matter(tmp_path: Path):
    assert read_events(write(tmp_path / "events.jsonl", '{"loss": "NaN"}', "", "")) == [
        {"loss": pytest.approx(math.nan, nan_ok=True)}
    ]


def test_a_missing_file_is_said_to_be_missing(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.jsonl"):
        read_events(tmp_path / "nowhere.jsonl")
