"""Whole programs with one mistake each: the printed diagnosis names cause, place and samples."""

import logging

import pytest

from nan_callbacks.core.events import read_events
from nan_callbacks.lightning import NaNGuard
from tests.lightning_adapter.ailing_programs import PROGRAMS
from tests.lightning_adapter.runs import loader, seed_all, tiny_trainer


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_printed_diagnosis_names_what_is_wrong(name, caplog, tmp_path):
    make, batches, expected = PROGRAMS[name]
    seed_all()
    guard = NaNGuard(strict=True, events_path=tmp_path / "events.jsonl")

    with caplog.at_level(logging.WARNING, logger="nan_callbacks"):
        tiny_trainer(guard).fit(make(), loader(batches()))

    printed = [record.getMessage() for record in caplog.records if "diagnosis of" in record.getMessage()]
    cause = next(line for line in printed[0].splitlines() if line.startswith("Why: ")).split(". Also considered")[0]
    assert any(f"({code}, " in cause for code in expected.codes), cause
    assert expected.line in printed[0]
    assert expected.module in printed[0]
    examined = next(incident for incident in guard.incidents if incident.diagnosis is not None)
    assert examined.diagnosis.cause.code in expected.codes
    if expected.module:
        assert examined.diagnosis.origin.module == expected.module
    if expected.row is not None:
        assert examined.diagnosis.guilty_rows == (expected.row,)
        assert str(expected.row) in cause
    written = [event for event in read_events(tmp_path / "events.jsonl") if event["event"] == "diagnosis"]
    assert f"NaNGuard: {written[0]['message']}" == printed[0]
    assert written[0]["code"] == examined.diagnosis.cause.code
    assert examined.diagnosis.steps_spent <= 60
