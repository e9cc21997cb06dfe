from pathlib import Path

import pytest

from nan_callbacks.cli import main
from nan_callbacks.core.events import read_events
from nan_callbacks.demo.faults import FAULTS

TINY = ["--epochs", "2"]


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

    assert main(["demo", *TINY, "--output", str(output)]) == 0

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
    command = ["demo", *TINY, "--faults", "nan_rows", "--output", str(tmp_path), "--seed", "3"]
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

    assert main(["demo", "--output", str(occupied)]) == 2
    assert str(occupied) in capsys.readouterr().err


def test_a_missing_extra_is_one_line_and_exit_code_two(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("nan_callbacks.demo.frameworks.importlib.util.find_spec", lambda name: None)

    assert main(["demo"]) == 2
    assert capsys.readouterr().err.endswith('Run: pip install "nan-callbacks[lightning,demo]"\n')
