import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from nan_callbacks.cli import main
from nan_callbacks.core.events import describe, to_json_line

INCIDENT = {
    "event": "incident", "step": 7, "epoch": 0, "batch_index": 7, "code": "NAN101", "title": "non-finite gradients",
    "where": "", "quantity": "grad_norm", "value": math.nan, "limit": None, "robust_z": None, "detail": "",
    "skipped": True,
}  # fmt: skip
SPIKE = {**INCIDENT, "step": 9, "code": "GRAD201", "title": "exploding gradient", "value": 812.0, "limit": 9.4}
ROLLBACK = {"event": "rollback", "step": 11, "restored_step": 0, "reason": "3 steps in a row were dropped"}


@pytest.fixture
def events_file(tmp_path: Path) -> Path:
    path = tmp_path / "events.jsonl"
    path.write_text("".join(to_json_line(event) + "\n" for event in (INCIDENT, SPIKE, ROLLBACK)), encoding="utf-8")
    return path


def test_every_event_is_one_sentence_and_the_last_line_counts_them(
    events_file: Path, capsys: pytest.CaptureFixture[str]
):
    assert main(["events", str(events_file)]) == 0

    assert capsys.readouterr().out.splitlines() == [
        describe(INCIDENT), describe(SPIKE), describe(ROLLBACK), "3 events: incident 2, rollback 1",
    ]  # fmt: skip


def test_a_torn_last_line_is_passed_over(events_file: Path, capsys: pytest.CaptureFixture[str]):
    with events_file.open("a", encoding="utf-8") as file:
        file.write('{"event": "incident", "st')

    assert main(["events", str(events_file)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "3 events: incident 2, rollback 1"


def test_json_gives_the_records_and_nothing_else(events_file: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["events", str(events_file), "--json"]) == 0

    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [record["event"] for record in records] == ["incident", "incident", "rollback"]
    assert records[0]["value"] == "NaN"


@pytest.mark.parametrize("code", ["GRAD201", "grad201"])
def test_code_selects(events_file: Path, capsys: pytest.CaptureFixture[str], code: str):
    assert main(["events", str(events_file), "--code", code]) == 0

    assert capsys.readouterr().out.splitlines() == [describe(SPIKE), "1 event: incident 1"]


def test_a_code_that_never_occurs_leaves_no_event(events_file: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["events", str(events_file), "--code", "ENV701"]) == 0

    assert capsys.readouterr().out == "0 events\n"


def test_a_missing_file_is_one_clear_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    missing = tmp_path / "nothing.jsonl"

    assert main(["events", str(missing)]) == 2
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", f"nan-callbacks: there is no events file {missing}.\n")


def test_a_folder_is_no_events_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["events", str(tmp_path)]) == 2

    assert str(tmp_path) in capsys.readouterr().err


def test_a_file_of_something_else_is_one_clear_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    other = tmp_path / "notes.txt"
    other.write_text("first line\nsecond line\n", encoding="utf-8")

    assert main(["events", str(other)]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"nan-callbacks: this is no events file: line 1 of {other}")
    assert error.count("\n") == 1


def test_a_reader_that_leaves_early_is_no_error(events_file: Path):
    events_file.write_text(to_json_line(INCIDENT) + "\n", encoding="utf-8")
    with events_file.open("a", encoding="utf-8") as file:
        file.writelines(to_json_line(SPIKE) + "\n" for _ in range(5000))  # more than a pipe holds
    read_end, write_end = os.pipe()
    command = [sys.executable, "-m", "nan_callbacks.cli", "events", str(events_file)]
    process = subprocess.Popen(command, stdout=write_end, stderr=subprocess.PIPE, text=True)
    os.close(write_end)
    os.read(read_end, 10)
    os.close(read_end)

    assert process.communicate()[1] == ""
    assert process.returncode == 0


def test_a_terminal_without_the_characters_gets_question_marks(events_file: Path):
    finished = subprocess.run(
        [sys.executable, "-m", "nan_callbacks.cli", "events", str(events_file)],
        env={**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}, capture_output=True, text=True, check=True,
    )  # fmt: skip

    assert "step 7 ? NAN101" in finished.stdout
