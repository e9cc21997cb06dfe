"""Whole programs with one mistake each: the printed diagnosis names cause, place and samples."""

import keras
import pytest

from nan_callbacks.core.events import read_events
from nan_callbacks.diagnosis.diagnosis import Confidence
from nan_callbacks.keras import NaNGuard
from tests.keras_adapter.ailing_programs import PROGRAMS, ROWS


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_printed_diagnosis_names_what_is_wrong(name, capsys, tmp_path):
    make, data, expected = PROGRAMS[name]
    keras.utils.set_random_seed(3)
    model, told = make(), []
    guard = NaNGuard(strict=True, events_path=tmp_path / "events.jsonl", on_incident=told.append)

    model.fit(*data(), batch_size=ROWS, shuffle=False, verbose=0, callbacks=[guard])

    printed = capsys.readouterr().out
    assert "diagnosis of" in printed
    cause = next(line for line in printed.splitlines() if line.startswith("Why: ")).split(". Also considered")[0]
    assert any(f"({code}, " in cause for code in expected.codes), printed
    examined = next(incident for incident in guard.incidents if incident.diagnosis is not None)
    assert examined.diagnosis.cause.code in expected.codes
    assert not expected.confirmed or examined.diagnosis.cause.confidence is Confidence.CONFIRMED, printed
    assert expected.line in printed, printed
    if expected.module:
        assert examined.diagnosis.origin.module.rpartition("/")[2] == expected.module
    if expected.row is not None:
        assert examined.diagnosis.guilty_rows == (expected.row,)
        assert str(expected.row) in cause
    written = [event for event in read_events(tmp_path / "events.jsonl") if event["event"] == "diagnosis"]
    assert f"NaNGuard: {written[0]['message']}" in printed
    assert written[0]["code"] == examined.diagnosis.cause.code
    assert examined.diagnosis.steps_spent <= 60
    assert tuple(told) == guard.incidents
