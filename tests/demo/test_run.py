import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from nan_callbacks.cli import main
from nan_callbacks.core.events import read_events
from nan_callbacks.demo.faults import FAULTS

TINY = ["--epochs", "2"]
LIGHTNING = ["--framework", "lightning"]


def table_of(text: str) -> dict[str, list[str]]:
    """The cells of the table, by fault."""
    lines = text.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("---")) + 1
    titles = {fault.title: name for name, fault in FAULTS.items()}
    rows = {}
    for line in lines[start:]:
        title = next((title for title in titles if line.startswith(title)), None)
        if title is None:
            break
        rows[titles[title]] = line.removeprefix(title).replace(" %", "").split()
    return rows


def test_the_demo_trains_every_arm_prints_the_table_and_writes_the_events(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    output = tmp_path / "new" / "folder"

    assert main(["demo", *LIGHTNING, *TINY, "--output", str(output)]) == 0

    text = capsys.readouterr().out
    rows = table_of(text)
    assert list(rows) == list(FAULTS)
    unguarded, guarded, undisturbed, incidents, skips, *_ = map(float, rows["nan_rows"])
    assert unguarded < 20 < 80 < guarded
    assert undisturbed > 80
    assert (incidents, skips) == (3, 3)
    assert {float(row[2]) for row in rows.values()} == {undisturbed}
    for name, row in rows.items():
        path = output / f"lightning_{name}.jsonl"
        assert f"nan-callbacks events {path}" in text
        assert sum(event["event"] == "incident" for event in read_events(path)) == int(row[3])
    assert max(len(line) for line in text.splitlines() if str(tmp_path) not in line) <= 100


def test_a_second_demo_replaces_the_events_of_the_first_and_prints_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    command = ["demo", *LIGHTNING, *TINY, "--faults", "nan_rows", "--output", str(tmp_path), "--seed", "3"]
    texts, steps = [], []
    for _ in range(2):
        assert main(command) == 0
        texts.append(capsys.readouterr().out)
        steps.append([event.get("step") for event in read_events(tmp_path / "lightning_nan_rows.jsonl")])

    assert texts[0] == texts[1]
    assert steps[0] == steps[1]
    assert list(table_of(texts[0])) == ["nan_rows"]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--faults", "nan_rows,bad_luck"], "unknown fault 'bad_luck'; choose from nan_rows, scaled_samples"),
        (["--framework", "caffe"], "invalid choice: 'caffe'"),
        (["--framework", "keras", "--backend", "openvino"], "invalid choice: 'openvino'"),
        (["--epochs", "0"], "must be a whole number >= 1, received '0'"),
        (["--seed", "one"], "must be a whole number >= 0, received 'one'"),
    ],
)
def test_a_wrong_argument_is_answered_with_what_is_possible(
    arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
):
    with pytest.raises(SystemExit) as caught:
        main(["demo", *arguments])

    assert caught.value.code == 2
    assert complaint in capsys.readouterr().err


def test_an_output_that_is_a_file_is_one_clear_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    occupied = tmp_path / "occupied"
    occupied.touch()

    assert main(["demo", *LIGHTNING, "--output", str(occupied)]) == 2
    assert str(occupied) in capsys.readouterr().err


def test_a_missing_extra_is_one_line_and_exit_code_two(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("nan_callbacks.demo.frameworks.importlib.util.find_spec", lambda name: None)

    assert main(["demo"]) == 2
    assert capsys.readouterr().err.endswith('Run: pip install "nan-callbacks[lightning,demo]"\n')


def test_a_backend_without_keras_is_one_line_and_exit_code_two(capsys: pytest.CaptureFixture[str]):
    assert main(["demo", *LIGHTNING, "--backend", "jax"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == (
        "nan-callbacks: `--backend` must be left out with --framework lightning, received 'jax'. "
        "It says what Keras runs on: use --framework keras.\n"
    )


def test_without_keras_the_demo_runs_in_lightning_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    find_spec = importlib.util.find_spec
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "keras" else find_spec(name))

    assert main(["demo", "--epochs", "1", "--faults", "nan_rows", "--output", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    assert text.startswith(
        'Keras on TensorFlow is left out: keras is not installed. To add it: pip install "nan-callbacks[keras,demo]"\n'
    )
    assert list(table_of(text)) == ["nan_rows"]


def test_the_demo_of_both_frameworks_ends_in_one_table_and_nothing_else_is_printed(tmp_path: Path):
    # A process of its own: Keras picks its backend once per process.
    command = [sys.executable, "-m", "nan_callbacks.cli", "demo", *TINY, "--faults", "nan_rows"]
    variables = {name: value for name, value in os.environ.items() if name != "KERAS_BACKEND"}
    variables["TF_CPP_MIN_LOG_LEVEL"] = "3"  # on a busy machine TensorFlow complains of slow compilation
    finished = subprocess.run(
        [*command, "--output", str(tmp_path)], env=variables, capture_output=True, text=True, check=False
    )

    assert (finished.returncode, finished.stderr) == (0, "")
    lines = finished.stdout.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("---")) + 1
    assert lines[start : start + 4 : 2] == ["Lightning", "Keras on TensorFlow"]
    for row in lines[start + 1 : start + 4 : 2]:
        unguarded, guarded, undisturbed, incidents, *_ = map(
            float, row.replace("rows with NaN", "").replace("%", "").split()
        )
        assert unguarded < 20 < 80 < guarded
        assert undisturbed > 80
        assert incidents == 3
    for name in ("lightning", "keras_tensorflow"):
        assert sum(event["event"] == "incident" for event in read_events(tmp_path / f"{name}_nan_rows.jsonl")) == 3
    assert max(len(line) for line in lines if str(tmp_path) not in line) <= 100
