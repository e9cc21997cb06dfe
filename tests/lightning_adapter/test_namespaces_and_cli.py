"""One class for `lightning.pytorch` and `pytorch_lightning`: their trainers, their command lines, their callbacks."""

import sys
from pathlib import Path
from typing import Any

import lightning.pytorch
import lightning.pytorch.cli
import pytest
import pytorch_lightning
import pytorch_lightning.cli

from nan_callbacks.lightning import NaNGuard
from nan_callbacks.lightning.namespace import CALLBACK_BASES, callback_types
from tests.lightning_adapter.set_ups import (
    RegressionSteps,
    equal,
    make_batches,
    make_trainer,
    quiet_guard,
    regression_of,
    weights,
)

pytestmark = pytest.mark.filterwarnings("ignore:(?s).*deprecat:DeprecationWarning:.*cli")  # jsonargparse's advice
LIBRARIES = pytest.mark.parametrize("library", [lightning.pytorch, pytorch_lightning], ids=["lightning", "pl"])


@pytest.fixture(autouse=True)
def _no_arguments_of_pytest(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "argv", ["train.py"])


class NewStyle(RegressionSteps, lightning.pytorch.LightningModule):
    """The model of a command line of `lightning.pytorch`."""

    def __init__(self) -> None:
        super().__init__()

    def train_dataloader(self) -> Any:
        return make_batches(6, spoiled=[2])


class OldStyle(RegressionSteps, pytorch_lightning.LightningModule):
    """The model of a command line of `pytorch_lightning`."""

    def __init__(self) -> None:
        super().__init__()

    def train_dataloader(self) -> Any:
        return make_batches(6, spoiled=[2])


def command_line(library: Any, *arguments: str, run: bool = False) -> Any:
    module_type = NewStyle if library is lightning.pytorch else OldStyle
    return library.cli.LightningCLI(
        module_type,
        args=[*(["fit"] if run else []), "--trainer.logger=false", "--trainer.accelerator=cpu", *arguments],
        run=run,
        save_config_callback=None,
        seed_everything_default=0,
    )


def config_file(folder: Path, **settings: Any) -> str:
    lines = ["trainer:", "  callbacks:", "  - class_path: nan_callbacks.lightning.NaNGuard"]
    if settings:
        lines += ["    init_args:", *(f"      {name}: {value}" for name, value in settings.items())]
    (folder / "config.yaml").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return f"--config={folder / 'config.yaml'}"


def guard_of(trainer: Any) -> NaNGuard:
    (guard,) = [callback for callback in trainer.callbacks if isinstance(callback, NaNGuard)]
    return guard


def test_both_libraries_are_installed_for_these_tests():
    assert {base.__module__.partition(".")[0] for base in CALLBACK_BASES} == {"lightning", "pytorch_lightning"}


@LIBRARIES
def test_the_guard_is_a_callback_of_the_library(library: Any):
    assert isinstance(NaNGuard(), library.Callback)


@LIBRARIES
def test_a_spoiled_batch_is_skipped_in_either_trainer(library: Any):
    guard, module = quiet_guard(), regression_of(library)
    make_trainer(guard, library=library).fit(module, make_batches(6, spoiled=[2]))

    assert guard.summary["skipped_steps"] == 1
    assert all(tensor.isfinite().all() for tensor in weights(module))


def test_both_trainers_end_with_the_same_weights():
    ends = []
    for library in (lightning.pytorch, pytorch_lightning):
        module = regression_of(library)
        make_trainer(quiet_guard(), library=library).fit(module, make_batches(6, spoiled=[2]))
        ends.append(weights(module))

    assert equal(*ends)


@LIBRARIES
def test_averaging_callbacks_of_the_library_are_known(library: Any):
    assert isinstance(library.callbacks.EMAWeightAveraging(), callback_types("WeightAveraging"))


def test_a_callback_that_no_version_has_is_no_type():
    assert callback_types("NoSuchCallback") == ()


@LIBRARIES
def test_the_command_line_reads_the_guard_from_yaml(library: Any, tmp_path: Path):
    config = config_file(
        tmp_path,
        on_spike="observe",
        z_threshold=6,
        lr_recovery_steps=200,
        events_path=tmp_path / "events.jsonl",
        checkpoint_snapshots="never",
        verbose="false",
    )
    guard = guard_of(command_line(library, config).trainer)

    assert guard.config.on_spike == "observe"
    assert guard.config.z_threshold == 6.0
    assert guard.config.lr_recovery_steps == 200
    assert str(guard.events_path) == str(tmp_path / "events.jsonl")
    assert guard.checkpoint_snapshots == "never"
    assert guard.verbose is False
    assert guard.config.max_rollbacks == NaNGuard().config.max_rollbacks


@LIBRARIES
def test_the_command_line_accepts_the_guard_without_arguments(library: Any, tmp_path: Path):
    assert guard_of(command_line(library, config_file(tmp_path)).trainer).config == NaNGuard().config


@LIBRARIES
def test_the_command_line_takes_the_guard_as_an_option(library: Any):
    cli = command_line(
        library, "--trainer.callbacks+=nan_callbacks.lightning.NaNGuard", "--trainer.callbacks.lr_factor=0.25"
    )

    assert guard_of(cli.trainer).config.lr_factor == 0.25


@LIBRARIES
def test_a_fit_from_the_command_line_is_guarded(library: Any, tmp_path: Path):
    config = config_file(tmp_path, verbose="false", strict="true")
    quick = ["--trainer.max_epochs=1", "--trainer.enable_progress_bar=false", "--trainer.enable_checkpointing=false"]
    cli = command_line(library, config, *quick, "--trainer.enable_model_summary=false", run=True)

    assert guard_of(cli.trainer).summary["skipped_steps"] == 1


@LIBRARIES
@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"on_spike": "explode"}, "explode"),
        ({"z_threshold": -3.0}, "`z_threshold` must be a number > 0, received -3.0"),
        ({"log_every_n_steps": 0}, "`log_every_n_steps` must be a whole number >= 1 or None, received 0"),
        ({"snapshots_every": 5}, "snapshots_every"),
        ({"window_size": "many"}, "many"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_the_command_line_refuses_what_cannot_work(
    library: Any, settings: dict[str, Any], complaint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    with pytest.raises((SystemExit, ValueError)) as raised:
        command_line(library, config_file(tmp_path, **settings))

    assert complaint in f"{raised.value} {capsys.readouterr().err}"


@LIBRARIES
def test_the_help_of_the_command_line_explains_every_argument(library: Any, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        command_line(library, "--trainer.callbacks.help=nan_callbacks.lightning.NaNGuard")

    text = capsys.readouterr().out
    assert "Factor on the learning rate at a rollback" in text
    assert all(f".{name}" in text for name in ("on_non_finite", "z_threshold", "events_path", "checkpoint_snapshots"))
