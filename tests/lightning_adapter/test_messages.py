"""What the guard says: through the progress bar, once, and nothing when told to be quiet."""

import json
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import ProgressBar, RichProgressBar, TQDMProgressBar

from nan_callbacks.core.events import read_events
from nan_callbacks.lightning import NaNGuard
from nan_callbacks.lightning.voice import announce_limits
from tests.lightning_adapter.set_ups import Regression, make_batches, make_trainer, quiet_guard

SKIPPED = "NaNGuard: step 2 · NAN101 non-finite gradients"
SUMMARY = "NaNGuard: summary · 6 steps · 1 incidents (NAN101 ×1) · 1 steps skipped"


def fit(guard: NaNGuard, *callbacks: Any, spoiled: tuple[int, ...] = (2,), **settings: Any) -> Trainer:
    trainer = make_trainer(guard, *callbacks, **settings)
    trainer.fit(Regression(), make_batches(6, spoiled=spoiled))
    return trainer


class RememberingBar(ProgressBar):
    """A bar that keeps what other callbacks print."""

    is_enabled = True

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def disable(self) -> None:
        pass

    def print(self, *args: Any, **kwargs: Any) -> None:
        self.lines.append(" ".join(map(str, args)))


def test_messages_go_through_the_print_of_the_progress_bar(caplog: pytest.LogCaptureFixture):
    bar = RememberingBar()
    fit(NaNGuard(diagnose="never"), bar, enable_progress_bar=True)

    assert len(bar.lines) == 2
    assert bar.lines[0].startswith(SKIPPED)
    assert bar.lines[0].endswith("the batch itself is non-finite → skipped, batch 2 of epoch 0")
    assert bar.lines[1] == SUMMARY
    assert not [record for record in caplog.records if record.name == "nan_callbacks"]


@pytest.mark.parametrize("bar", [TQDMProgressBar, RichProgressBar])
def test_the_bars_of_lightning_show_the_messages(bar: type[ProgressBar], capfd: pytest.CaptureFixture[str]):
    fit(NaNGuard(strict=True), bar(), enable_progress_bar=True)

    printed, _ = capfd.readouterr()
    unwrapped = printed.replace("\n", "")  # rich wraps long lines at the width of the terminal
    assert unwrapped.count(SKIPPED) == 1
    assert unwrapped.count("NaNGuard: summary · 6 steps") == 1


def test_without_a_bar_messages_go_to_the_logger_of_the_package(caplog: pytest.LogCaptureFixture):
    fit(NaNGuard(diagnose="never"))

    said = [record for record in caplog.records if record.name == "nan_callbacks"]
    assert [record.levelno for record in said] == [logging.WARNING, logging.WARNING]
    assert said[0].getMessage().startswith(SKIPPED)
    assert said[1].getMessage() == SUMMARY


@pytest.mark.parametrize(
    ("settings", "spoiled"), [({"verbose": False}, (2, 4)), ({}, ())], ids=["told to be quiet", "nothing happened"]
)
def test_silence(settings: dict[str, Any], spoiled: tuple[int, ...], caplog: pytest.LogCaptureFixture):
    bar = RememberingBar()
    fit(NaNGuard(**settings), bar, enable_progress_bar=True, spoiled=spoiled)

    assert bar.lines == []
    assert not [record for record in caplog.records if record.name == "nan_callbacks"]


def test_a_disabled_bar_is_not_used(caplog: pytest.LogCaptureFixture):
    fit(NaNGuard(), TQDMProgressBar(refresh_rate=0), enable_progress_bar=True)

    assert SUMMARY in [record.getMessage() for record in caplog.records]


def test_the_events_file_holds_one_strict_json_object_per_line(tmp_path: Path):
    path = tmp_path / "logs" / "events.jsonl"
    guard = quiet_guard(events_path=path, diagnose="never")
    fit(guard, spoiled=(2, 4))

    def refuse(constant: str) -> None:
        raise ValueError(constant)

    lines = path.read_text(encoding="utf-8").splitlines()
    records = [json.loads(line, parse_constant=refuse) for line in lines]
    assert [(record["event"], record.get("step")) for record in records] == [
        ("incident", 2), ("incident", 4), ("summary", None),
    ]  # fmt: skip
    assert records[0]["grad_norm"] == "NaN"
    assert all({"schema", "time", "message"} <= set(record) for record in records)
    assert repr(read_events(path)) == repr(guard.events)


def test_a_second_fit_appends_to_the_events_file(tmp_path: Path):
    guard = quiet_guard(events_path=str(tmp_path / "events.jsonl"), diagnose="never")
    fit(guard)
    fit(guard)

    kinds = [event["event"] for event in read_events(tmp_path / "events.jsonl")]
    assert kinds == ["incident", "summary", "incident", "summary"]


def test_a_fit_that_breaks_off_closes_its_record(tmp_path: Path):
    class Breaks(Regression):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            if batch_idx == 4:
                raise KeyError("a bug of the user")
            return super().training_step(batch, batch_idx)

    guard = quiet_guard(events_path=tmp_path / "events.jsonl", diagnose="never")
    with pytest.raises(KeyError, match="a bug of the user"):
        make_trainer(guard).fit(Breaks(), make_batches(6, spoiled=[2]))

    incident, summary = read_events(tmp_path / "events.jsonl")
    assert incident["step"] == 2
    assert (summary["event"], summary["steps"]) == ("summary", 4)


@pytest.mark.parametrize(("name", "warnings"), [("DeepSpeedStrategy", 1), ("FSDPStrategy", 1), ("DDPStrategy", 0)])
def test_a_strategy_that_cannot_be_guarded_fully_is_announced(
    name: str, warnings: int, caplog: pytest.LogCaptureFixture
):
    trainer = SimpleNamespace(strategy=type(name, (), {})(), is_global_zero=True)

    announce_limits(trainer)

    assert [name in record.getMessage() for record in caplog.records] == [True] * warnings
