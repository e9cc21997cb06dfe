"""Splitting a run by save and resume changes no decision and no weight."""

import copy
from pathlib import Path
from typing import Any

import lightning.pytorch
import pytest
import pytorch_lightning
import torch
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.strategies import SingleDeviceStrategy
from torch import Tensor, nn
from torch.optim import AdamW, lr_scheduler

from nan_callbacks.lightning import NaNGuard
from tests.lightning_adapter.set_ups import (
    Batches,
    EvaluatedRegression,
    Regression,
    equal,
    make_batches,
    make_trainer,
    quiet_guard,
    regression_of,
    weights,
)

EPOCH = 10
RESUME_AT = 20
KEY = "nan_callbacks.NaNGuard"

NAN_AT = {5, 22}
NAN_FROM = 27
"""From here on until the guard rolls back, and not the batch's fault."""
SPIKE_AT = {14, 38}
GUARD = {"snapshot_every_n_steps": 8, "probation_steps": 14, "warmup_steps": 5, "window_size": 16}
"""The snapshot of step 8 is still on probation at the resume, and the target of the rollback after it."""

FACTS = (
    "event", "code", "step", "epoch", "batch_index", "skipped", "value", "limit", "reason", "restored_step", "lr_scale",
)  # fmt: skip


class Faulty(Regression):
    """Batch normalisation, moments, two schedules, logged metrics, and losses that go wrong at some steps."""

    def __init__(self, guard: NaNGuard) -> None:
        super().__init__(self.schedule)
        self.guard = guard
        torch.manual_seed(3)
        self.net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 1))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss, step = self.loss(batch), self.trainer.global_step
        if step in NAN_AT or (step >= NAN_FROM and self.guard.summary["rollbacks"] == 0):
            loss = loss * float("nan")
        if step in SPIKE_AT:
            loss = loss * 1e8
        self.log("train_loss", loss, on_step=True, on_epoch=True)
        return loss

    def schedule(self, module: nn.Module) -> dict[str, Any]:
        optimizer = AdamW(module.parameters(), lr=0.02)
        scheduler = lr_scheduler.ChainedScheduler(
            [lr_scheduler.MultiStepLR(optimizer, [7, 18, 33], 0.7), lr_scheduler.LambdaLR(optimizer, lambda t: 0.99**t)]
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


class SaveAt(Callback):
    """Writes a checkpoint when this many batches are done: as the last callback of that batch's or epoch's end."""

    def __init__(self, path: Path, step: int) -> None:
        self.path = path
        self.step = step

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        if trainer.global_step == self.step and self.step % EPOCH:
            trainer.save_checkpoint(self.path)

    def on_train_epoch_end(self, trainer: Trainer, *_: Any) -> None:
        if trainer.global_step == self.step:
            trainer.save_checkpoint(self.path)


def run(batches: Batches, *callbacks: Any, epochs: int = 4, **arguments: Any) -> tuple[NaNGuard, list[Tensor], Trainer]:
    """Fit a new module with a new guard and a new trainer."""
    guard = quiet_guard(**{**GUARD, **arguments.pop("guard_settings", {})})
    module = Faulty(guard)
    trainer = make_trainer(guard, *callbacks, max_epochs=epochs, **arguments.pop("settings", {}))
    trainer.fit(module, batches, **arguments)
    return guard, weights(module), trainer


def facts(*guards: NaNGuard) -> list[tuple[Any, ...]]:
    """What happened and what was done, without times, closing summaries and explanations."""
    left_out = ("summary", "diagnosis")
    records = [event for guard in guards for event in guard.events if event["event"] not in left_out]
    return [tuple(repr(event.get(name)) for name in FACTS) for event in records]


def happened(facts_: list[tuple[Any, ...]], event: str) -> list[tuple[Any, ...]]:
    return [fact for fact in facts_ if fact[0] == repr(event)]


@pytest.fixture(scope="module")
def unbroken() -> tuple[NaNGuard, list[Tensor], Trainer]:
    return run(make_batches(EPOCH))


def test_the_run_under_test_has_skips_a_spike_and_a_rollback_across_the_resume(unbroken: Any):
    guard, _, _ = unbroken

    (rollback,) = [event for event in guard.events if event["event"] == "rollback"]
    codes = {event["step"]: event["code"] for event in guard.events if event["event"] == "incident"}
    assert {5, 14, 22, 27, 28, 29, 38} <= set(codes)
    assert codes[14] in ("GRAD201", "LOSS401")
    assert codes[22] == codes[27] == "NAN101"
    assert (rollback["step"] >= NAN_FROM, rollback["restored_step"]) == (True, 8)
    assert guard.summary["lr_scale"] == 0.5


@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`, callbacks used to create")
@pytest.mark.parametrize("saved", ["at the end of the epoch", "after the fit", "by ModelCheckpoint"])
def test_a_resumed_run_decides_and_ends_as_the_unbroken_one(saved: str, unbroken: Any, tmp_path: Path):
    whole_guard, whole_weights, _ = unbroken
    path = tmp_path / "last.ckpt"
    callbacks = {
        "at the end of the epoch": [SaveAt(path, RESUME_AT)],
        "after the fit": [],
        "by ModelCheckpoint": [ModelCheckpoint(tmp_path, save_last=True)],
    }[saved]
    settings = {"enable_checkpointing": saved == "by ModelCheckpoint"}

    first, _, trainer = run(make_batches(EPOCH), *callbacks, epochs=2, settings=settings)
    if saved == "after the fit":
        trainer.save_checkpoint(path)
    second, end, _ = run(make_batches(EPOCH), ckpt_path=path)

    assert facts(first, second) == facts(whole_guard)
    assert happened(facts(second), "rollback") == happened(facts(whole_guard), "rollback")
    assert equal(end, whole_weights)
    assert second.summary == whole_guard.summary
    assert second.state_dict()["monitor"] == whole_guard.state_dict()["monitor"]


class SameBatchAgain(Batches):
    """A loader to whose place in the epoch Lightning can return: every batch is the same."""

    def __init__(self) -> None:
        super().__init__(make_batches(1).batches * EPOCH)

    def state_dict(self) -> dict[str, Any]:
        return {"anything": 0}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


@pytest.mark.parametrize("step", [13, 25, 28, 36])
def test_a_run_resumed_in_the_middle_of_an_epoch_decides_and_ends_as_the_unbroken_one(step: int, tmp_path: Path):
    def run_until(steps: int, *callbacks: Any, **arguments: Any) -> Any:
        return run(SameBatchAgain(), *callbacks, epochs=-1, settings={"max_steps": steps}, **arguments)

    whole_guard, whole_weights, _ = run_until(40)
    first, _, _ = run_until(step, SaveAt(tmp_path / "middle.ckpt", step))
    second, end, _ = run_until(40, ckpt_path=tmp_path / "middle.ckpt")

    assert len(happened(facts(whole_guard), "rollback")) == 1
    assert facts(first, second) == facts(whole_guard)
    assert equal(end, whole_weights)
    assert second.state_dict()["monitor"] == whole_guard.state_dict()["monitor"]


def test_the_default_load_of_weights_only_reads_the_state(tmp_path: Path):
    _, _, trainer = run(make_batches(EPOCH), epochs=2)
    trainer.save_checkpoint(tmp_path / "saved.ckpt")

    state = torch.load(tmp_path / "saved.ckpt", weights_only=True)["callbacks"][KEY]
    assert set(state) == {"version", "monitor", "journal", "desk", "health", "history", "learning_rate", "snapshots"}


def plain(value: Any) -> bool:
    """Whether a value consists of plain containers, plain scalars and tensors."""
    if type(value) in (list, tuple):
        return all(plain(item) for item in value)
    if type(value) is dict:
        return all(type(key) in (str, int) and plain(item) for key, item in value.items())
    return value is None or type(value) in (bool, int, float, str, Tensor)


def test_all_of_our_own_state_is_plain(tmp_path: Path):
    guard, _, _ = run(make_batches(EPOCH), epochs=2)
    state = copy.deepcopy(guard.state_dict())
    for slot in state["snapshots"].values():
        slot["snapshot"]["plain"].pop("schedulers")  # torch's own: MultiStepLR keeps a Counter

    assert plain(state)


def test_without_snapshots_in_the_checkpoint_rollbacks_go_no_further_than_the_resume(tmp_path: Path):
    path, settings = tmp_path / "small.ckpt", {"guard_settings": {"checkpoint_snapshots": "never"}}
    run(make_batches(EPOCH), SaveAt(path, RESUME_AT), epochs=2, **settings)
    guard, end, _ = run(make_batches(EPOCH), ckpt_path=path, **settings)

    assert "snapshots" not in torch.load(path, weights_only=True)["callbacks"][KEY]
    (rollback,) = [event for event in guard.events if event["event"] == "rollback"]
    assert rollback["restored_step"] == RESUME_AT
    assert all(torch.isfinite(tensor).all() for tensor in end)


CHOICES = ("auto", "always", "never")


def has_snapshots(choice: str) -> bool:
    guard, _, _ = run(make_batches(EPOCH), epochs=1, guard_settings={"checkpoint_snapshots": choice})
    return "snapshots" in guard.state_dict()


def test_snapshots_above_the_limit_travel_only_on_demand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("nan_callbacks.lightning.snapshots.MAX_BYTES_IN_CHECKPOINT", 10)

    assert [has_snapshots(choice) for choice in CHOICES] == [False, True, False]


def test_snapshots_of_sharded_strategies_never_travel(monkeypatch: pytest.MonkeyPatch):
    """Only rank 0's state of a callback is saved, which holds nothing of the other ranks' shards."""
    # A stand-in for the property by which Lightning tells its sharded strategies from the others.
    monkeypatch.setattr(SingleDeviceStrategy, "restore_checkpoint_after_setup", True)

    assert [has_snapshots(choice) for choice in CHOICES] == [False, False, False]


@pytest.mark.parametrize("change", [{"version": 99}, {"version": None}])
def test_a_state_of_another_version_is_refused(change: dict[str, Any], tmp_path: Path):
    path = tmp_path / "foreign.ckpt"
    run(make_batches(EPOCH), SaveAt(path, EPOCH), epochs=1)
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["callbacks"][KEY].update(change)
    torch.save(checkpoint, path)

    with pytest.raises(ValueError, match=rf"of version 1, received {change['version']}; resume with the version"):
        run(make_batches(EPOCH), ckpt_path=path)


def test_a_checkpoint_written_between_the_resume_and_its_first_step_still_holds_the_state(tmp_path: Path):
    """As tuning callbacks write one and load it again."""

    class SaveAndLoad(Callback):
        def on_fit_start(self, trainer: Trainer, *_: Any) -> None:
            trainer.save_checkpoint(tmp_path / "again.ckpt")
            trainer._checkpoint_connector.restore(tmp_path / "again.ckpt")

    make_trainer(quiet_guard(), SaveAt(tmp_path / "first.ckpt", EPOCH)).fit(Regression(), make_batches(EPOCH))
    guard = quiet_guard()
    trainer = make_trainer(guard, SaveAndLoad(), max_epochs=2)
    trainer.fit(Regression(), make_batches(EPOCH), ckpt_path=tmp_path / "first.ckpt")

    # At that moment the trainer's own progress is not restored yet: it begins with its first epoch again.
    assert guard.summary["steps"] == EPOCH + 2 * EPOCH


def test_a_checkpoint_written_without_a_guard_is_resumed_with_a_fresh_one(tmp_path: Path):
    trainer = make_trainer()
    trainer.fit(Regression(), make_batches(EPOCH))
    trainer.save_checkpoint(tmp_path / "bare.ckpt")
    guard = quiet_guard()
    make_trainer(guard, max_epochs=2).fit(Regression(), make_batches(EPOCH), ckpt_path=tmp_path / "bare.ckpt")

    assert guard.summary["steps"] == EPOCH


def test_a_checkpoint_loaded_for_validation_does_not_leak_into_the_next_fit(tmp_path: Path):
    trainer = make_trainer(quiet_guard())
    trainer.fit(Regression(), make_batches(EPOCH))
    trainer.save_checkpoint(tmp_path / "done.ckpt")

    guard = quiet_guard()
    trainer = make_trainer(guard)
    trainer.validate(EvaluatedRegression(), make_batches(2), ckpt_path=tmp_path / "done.ckpt", verbose=False)
    trainer.fit(Regression(), make_batches(EPOCH))

    assert guard.summary["steps"] == EPOCH


@pytest.mark.parametrize(
    ("writer", "reader"),
    [(lightning.pytorch, pytorch_lightning), (pytorch_lightning, lightning.pytorch)],
    ids=["lightning to pytorch_lightning", "pytorch_lightning to lightning"],
)
def test_a_checkpoint_of_one_namespace_is_resumed_in_the_other(writer: Any, reader: Any, tmp_path: Path):
    trainer = make_trainer(quiet_guard(), library=writer)
    trainer.fit(regression_of(writer), make_batches(EPOCH, spoiled=[4]))
    trainer.save_checkpoint(tmp_path / "moved.ckpt")

    guard = quiet_guard()
    trainer = make_trainer(guard, library=reader, max_epochs=2)
    trainer.fit(regression_of(reader), make_batches(EPOCH, spoiled=[4]), ckpt_path=tmp_path / "moved.ckpt")

    assert guard.summary["steps"] == 2 * EPOCH
    assert guard.summary["skipped_steps"] == 2
    assert [event["step"] for event in guard.events if event["event"] == "incident"] == [EPOCH + 4]
