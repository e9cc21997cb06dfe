"""Journal: keeps the events, appends them to a file, says them within a budget, counts them."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from nan_callbacks.core import journal as journal_module
from nan_callbacks.core.events import Event, read_events
from nan_callbacks.core.journal import SPOKEN_PER_CODE, Journal
from tests.core.simulated_run import SimulatedRun


def incident(code: str = "NAN101", step: int = 0) -> Event:
    return {"event": "incident", "code": code, "step": step, "loss": math.nan, "message": f"step {step} · {code}"}


def action(kind: str, **more: Any) -> Event:
    return {"event": kind, "step": 9, "message": f"step 9 · {kind}", **more}


def test_events_are_appended_line_by_line_as_they_come(tmp_path: Path):
    path = tmp_path / "new" / "folder" / "events.jsonl"
    journal = Journal(path, None)

    journal.record([incident(step=1), incident(step=2)])
    assert [event["step"] for event in read_events(path)] == [1, 2]
    journal.record([incident(step=3)])

    assert [event["step"] for event in read_events(path)] == [1, 2, 3]
    assert [event["step"] for event in journal.events] == [1, 2, 3]


def test_a_second_run_appends_to_the_first(tmp_path: Path):
    path = tmp_path / "events.jsonl"
    for step in (1, 2):
        Journal(path, None).record([incident(step=step)])

    assert [event["step"] for event in read_events(path)] == [1, 2]


@pytest.mark.parametrize("torn", ['{"event": "inc', '{"event": "incident", "message": "2 robust σ'])
def test_a_run_that_was_killed_within_a_line_does_not_spoil_the_next_one(tmp_path: Path, torn: str):
    path = tmp_path / "events.jsonl"
    path.write_bytes(b'{"step": 1}\n' + torn.encode()[:-1])

    Journal(path, None).record([incident(step=2)])

    assert [event["step"] for event in read_events(path)] == [1, 2]


def test_a_whole_last_line_without_its_end_is_kept(tmp_path: Path):
    path = tmp_path / "events.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}', encoding="utf-8")

    Journal(path, None).record([incident(step=3)])

    assert [event["step"] for event in read_events(path)] == [1, 2, 3]


def test_a_file_of_somebody_else_loses_nothing(tmp_path: Path):
    path = tmp_path / "notes.txt"
    path.write_text("remember the milk", encoding="utf-8")

    Journal(path, None).record([incident(step=1)])

    assert path.read_text(encoding="utf-8").startswith("remember the milk\n{")


def test_without_events_no_file_is_made(tmp_path: Path):
    path = tmp_path / "events.jsonl"

    Journal(path, None).record([])

    assert not path.exists()


def test_a_file_that_cannot_be_written_is_given_up_with_one_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    journal = Journal(tmp_path, None)

    journal.record([incident()])
    journal.record([incident()])

    assert len(journal.events) == 2
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert str(tmp_path) in caplog.text


def test_the_first_incidents_of_a_code_are_said_and_then_every_tenth():
    said: list[str] = []
    journal = Journal(None, said.append)

    journal.record([incident(step=step) for step in range(1, 41)])

    first = [*range(1, SPOKEN_PER_CODE + 1), 10, 20, 30, 40]
    assert said == [f"step {step} · NAN101" for step in first]
    assert len(journal.events) == 40


def test_what_was_found_besides_is_counted_as_well():
    journal = Journal(None, None)

    journal.record([incident() | {"also": ["LOSS401", "GRAD201"]}, incident("LOSS401")])

    summary = journal.summary(steps=2, lr_scale=1.0)
    assert summary["incidents"] == 2
    assert summary["codes"] == {"NAN101": 1, "LOSS401": 2, "GRAD201": 1}


def test_every_code_has_a_budget_of_its_own():
    said: list[str] = []
    journal = Journal(None, said.append)
    journal.record([incident(step=step) for step in range(9)])

    journal.record([incident("GRAD201", step=10)])

    assert said[-1] == "step 10 · GRAD201"


def test_what_is_done_is_always_said():
    said: list[str] = []
    journal = Journal(None, said.append)

    journal.record([action("rollback")] * 30)

    assert len(said) == 30


def test_the_summary_counts_what_happened():
    journal = Journal(None, None)
    journal.record([incident(), incident("GRAD201"), incident(), action("rollback"), action("reduce_lr")])
    journal.record([action("level_accepted"), action("stop", reason="enough")])
    journal.count_skipped_step()

    assert journal.summary(steps=70, lr_scale=0.5) == {
        "steps": 70,
        "incidents": 3,
        "skipped_steps": 1,
        "rollbacks": 1,
        "lr_cuts": 1,
        "levels_accepted": 1,
        "codes": {"NAN101": 2, "GRAD201": 1},
        "lr_scale": 0.5,
        "stopped": True,
        "stop_reason": "enough",
    }


def test_a_fresh_journal_counts_nothing():
    summary = Journal(None, None).summary(steps=0, lr_scale=1.0)

    assert summary["incidents"] == summary["skipped_steps"] == summary["rollbacks"] == summary["lr_cuts"] == 0
    assert (summary["stopped"], summary["stop_reason"]) == (False, None)


def test_the_end_is_one_event_and_one_sentence(tmp_path: Path):
    said: list[str] = []
    journal = Journal(tmp_path / "events.jsonl", said.append)
    journal.record([incident(), incident("GRAD201"), *[action("rollback")] * 2, action("stop", reason="enough")])
    for _ in range(6):
        journal.count_skipped_step()

    journal.close(steps=70, lr_scale=0.5)

    assert said[-1] == (
        "summary · 70 steps · 2 incidents (GRAD201 ×1, NAN101 ×1) · 6 steps skipped · 2 rollbacks"
        " · learning rate at 0.5 of its schedule · stopped: enough"
    )
    last = read_events(tmp_path / "events.jsonl")[-1]
    assert (last["event"], last["steps"], last["message"]) == ("summary", 70, said[-1])


def test_a_run_without_incidents_ends_in_silence():
    said: list[str] = []
    journal = Journal(None, said.append)

    journal.close(steps=10, lr_scale=1.0)

    assert said == []
    assert journal.events[-1]["message"] == "summary · 10 steps · 0 incidents"


def test_the_journal_speaks_again_after_a_silent_end():
    said: list[str] = []
    journal = Journal(None, said.append)
    journal.close(steps=10, lr_scale=1.0)

    journal.record([incident(step=11)])

    assert said == ["step 11 · NAN101"]


def test_a_resumed_journal_counts_on_and_keeps_to_its_budget():
    old = Journal(None, None)
    old.record([incident()] * 8)
    old.count_skipped_step()
    said: list[str] = []
    new = Journal(None, said.append)

    new.load_state_dict(json.loads(json.dumps(old.state_dict(), allow_nan=False)))
    new.record([incident(step=9), incident(step=10)])

    assert said == ["step 10 · NAN101"]
    assert new.summary(steps=10, lr_scale=1.0)["incidents"] == 10
    assert new.summary(steps=10, lr_scale=1.0)["skipped_steps"] == 1


def test_memory_is_bounded_while_the_counts_go_on(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(journal_module, "MAX_EVENTS_KEPT", 5)
    journal = Journal(None, None)

    journal.record([incident(step=step) for step in range(12)])

    assert len(journal.events) == 5
    assert journal.summary(steps=12, lr_scale=1.0)["incidents"] == 12


def test_the_events_of_a_whole_run_are_read_back_as_they_were(tmp_path: Path):
    run = SimulatedRun()
    run.healthy(60)
    run.actions(6, loss=1e6, grad_norm=math.inf)
    journal = Journal(tmp_path / "events.jsonl", None)

    journal.record(run.events)

    assert len(run.events) > 6
    assert list(map(repr, read_events(tmp_path / "events.jsonl"))) == list(map(repr, run.events))
