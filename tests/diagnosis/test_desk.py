"""The desk: which incidents are examined, what that may cost, and who is told."""

import logging
import time
from pathlib import Path

import pytest

from nan_callbacks.core.events import read_events
from nan_callbacks.core.journal import Journal
from nan_callbacks.diagnosis.desk import Desk, DeskSettings
from nan_callbacks.diagnosis.diagnosis import Confidence, Diagnosis, Verdict
from nan_callbacks.diagnosis.origin import Origin, OriginKind, ReplayResult


def event(step, code="NAN101"):
    return {"event": "incident", "step": step, "epoch": 0, "batch_index": step, "code": code, "title": "a symptom",
            "action": "skip_step", "message": f"step {step}"}  # fmt: skip


class FakeCase:
    """An incident whose failure begins in some module."""

    def __init__(self, module="net", seconds=0.0):
        self.module, self.seconds, self.calls, self.saved = module, seconds, [], []

    def replay(self, seconds):
        self.calls.append("replay")
        return ReplayResult(
            origin=Origin(kind=OriginKind.OPERATION, operation="log", module=self.module), reproduced=True
        )

    def diagnose(self, replay, budget):
        self.calls.append("diagnose")
        time.sleep(self.seconds)
        verdict = Verdict(
            code="NAN111", title="log of zero", confidence=Confidence.CONFIRMED, because=("it is sample 3",)
        )
        return Diagnosis(verdicts=(verdict,), origin=replay.origin, guilty_rows=(3,))

    def save(self, folder, about):
        self.saved.append(folder)


class Office:
    """A desk, its journal, and every case that was opened."""

    def __init__(self, *, strict=True, path=None, **settings):
        self.said, self.cases = [], {}
        self.journal = Journal(path, self.said.append)
        self.desk = Desk(DeskSettings(**settings), self.journal, strict=strict)

    def receive(self, step, code="NAN101", case=None):
        case = case or FakeCase()

        def opened():
            self.cases[step] = case
            return case

        return self.desk.take_in(event(step, code), opened)


def test_the_first_of_a_code_is_examined_then_powers_of_two_are_replayed():
    office = Office()
    for step in range(1, 101):
        office.receive(step)
    assert sorted(office.cases) == [1, 2, 4, 8, 16, 32, 64]
    assert office.cases[1].calls == ["replay", "diagnose"]
    assert all(case.calls == ["replay"] for step, case in office.cases.items() if step > 1)
    assert len(office.desk.incidents) == 100


def test_another_code_or_another_origin_is_examined_anew():
    office = Office()
    office.receive(1)
    office.receive(2, "GRAD201")
    office.receive(3, case=FakeCase(module="head"))
    assert [case.calls for case in office.cases.values()] == [["replay", "diagnose"]] * 3


def test_a_known_origin_is_told_without_the_samples_of_the_other_incident():
    office = Office()
    office.receive(1)
    again = office.receive(2).diagnosis
    assert (again.cause.code, again.guilty_rows, again.cause.because) == ("NAN111", (), ())
    assert "step 1" in again.note


@pytest.mark.parametrize(("when", "opened"), [("first", [1]), ("never", [])])
def test_the_user_says_when(when, opened):
    office = Office(diagnose=when)
    for step in (1, 2, 3):
        incident = office.receive(step, code=f"NAN10{step}")
    assert sorted(office.cases) == opened
    assert incident.diagnosis is None


def test_when_the_budget_is_spent_incidents_are_no_longer_examined(caplog):
    office = Office(diagnose_budget_s=0.01)
    office.receive(1, "A1", FakeCase(seconds=0.02))
    office.receive(2, "A2")
    assert sorted(office.cases) == [1]
    assert sum("diagnose_budget_s" in record.getMessage() for record in caplog.records) == 1


def test_a_diagnosis_is_said_and_written_once(tmp_path: Path):
    office = Office(path=tmp_path / "events.jsonl")
    office.receive(7)
    (told,) = read_events(tmp_path / "events.jsonl")
    assert (told["event"], told["step"], told["about"], told["code"], told["confidence"]) == (
        "diagnosis", 7, "NAN101", "NAN111", "confirmed",
    )  # fmt: skip
    assert office.said == [told["message"]]
    assert told["message"].startswith("step 7 · diagnosis of NAN101\n")
    assert Diagnosis.from_dict(told["diagnosis"]).cause.code == "NAN111"


def test_everybody_who_asked_is_told():
    told = []
    office = Office(on_incident=told.append)
    incidents = [office.receive(step) for step in (1, 2)]
    assert told == incidents == list(office.desk.incidents)


class BrokenCase(FakeCase):
    def replay(self, seconds):
        raise RuntimeError("our own mistake")


def test_an_error_of_ours_is_reported_once_and_ends_the_diagnoses_only(caplog):
    office = Office(strict=False)
    with caplog.at_level(logging.WARNING, logger="nan_callbacks"):
        incidents = [office.receive(step, code=f"C{step}", case=BrokenCase()) for step in (1, 2, 3)]
    assert [record.getMessage().count("our own mistake") for record in caplog.records] == [1]
    assert [incident.diagnosis for incident in incidents] == [None] * 3
    with pytest.raises(RuntimeError, match="our own mistake"):
        Office(strict=True).receive(1, case=BrokenCase())


def test_an_error_of_the_users_function_does_not_stop_the_run(caplog):
    def broken(incident):
        raise KeyError("theirs")

    office = Office(strict=False, on_incident=broken)
    office.receive(1)
    office.receive(2)
    assert sum("on_incident raised KeyError" in record.getMessage() for record in caplog.records) == 1
    with pytest.raises(KeyError, match="theirs"):
        Office(on_incident=broken).receive(1)


def test_examined_incidents_are_saved_in_a_folder_of_their_own(tmp_path: Path):
    office = Office(save_batch=tmp_path)
    for step in (3, 4, 5):
        office.receive(step)
    assert [case.saved for case in office.cases.values()] == [[tmp_path / "step_000003"], []]


def test_a_resumed_desk_knows_what_was_examined():
    office, resumed = Office(), Office()
    office.receive(1)
    resumed.desk.load_state_dict(office.desk.state_dict())
    assert resumed.desk.seconds_left == office.desk.seconds_left < 60.0
    resumed.receive(2)
    assert resumed.cases[2].calls == ["replay"]


def test_another_process_may_know_better():
    class NotHere(FakeCase):
        def diagnose(self, replay, budget):
            return None

    office = Office()
    assert office.receive(1, case=NotHere()).diagnosis is None
    assert office.said == []


def test_an_error_is_an_incident_only_if_the_step_raises_again():
    class Raises(FakeCase):
        def replay(self, seconds):
            return ReplayResult(origin=Origin(kind=OriginKind.EXCEPTION, operation="IndexError"), reproduced=True)

    office = Office()
    raised = event(4, "ENV703")
    assert office.desk.take_in_exception(raised, FakeCase) is None
    assert office.desk.take_in_exception(raised, Raises).diagnosis.cause.code == "NAN111"
    assert [incident.code for incident in office.desk.incidents] == ["ENV703"]


def test_an_error_that_a_nan_led_to_is_an_incident_and_a_nan_without_an_error_is_none():
    nan = Origin(kind=OriginKind.BATCH, operation="batch[0]")

    class LedTo(FakeCase):
        def replay(self, seconds):
            error = Origin(kind=OriginKind.EXCEPTION, operation="ValueError")
            return ReplayResult(origin=nan, others=(error,), reproduced=True)

    class OnlyNaN(FakeCase):
        def replay(self, seconds):
            return ReplayResult(origin=nan, reproduced=True)

    office = Office()
    assert office.desk.take_in_exception(event(4, "ENV703"), OnlyNaN) is None
    assert office.desk.take_in_exception(event(4, "ENV703"), LedTo).code == "ENV703"


def test_an_error_of_ours_while_looking_into_one_of_the_users_is_reported(caplog):
    office = Office(strict=False)
    assert office.desk.take_in_exception(event(4, "ENV703"), BrokenCase) is None
    assert "the diagnosis failed" in caplog.text
