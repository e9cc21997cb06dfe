"""The guard's own failure ends the guard, not the run; and whatever it took over, it gives back."""

import pytest
import torch
from pytorch_lightning import Callback

from nan_callbacks.lightning import NaNGuard
from nan_callbacks.lightning.session import GuardSession
from nan_callbacks.lightning.window import Window
from tests.lightning_adapter.runs import (
    OPTIMIZERS,
    SCHEDULERS,
    TinyModule,
    differences,
    fit,
    healthy_batches,
    spoiled,
    strict_guard,
)

FAILS_AT = 5


def tiny():
    return TinyModule(OPTIMIZERS["AdamW-foreach"], SCHEDULERS["Cosine"])


def let_fail(monkeypatch, owner: type, name: str, call: int = FAILS_AT) -> None:
    """Let one method fail at one of its calls."""
    original, calls = getattr(owner, name), []

    def failing(self, *args, **kwargs):
        calls.append(name)
        if len(calls) == call:
            raise RuntimeError(f"{name} broke")
        return original(self, *args, **kwargs)

    monkeypatch.setattr(owner, name, failing)


def taken_over(trainer) -> list[str]:
    """Everything of the trainer's objects that is not as Lightning made it."""
    found = [name for name in ("_clip_gradients",) if name in vars(trainer.precision_plugin)]
    found += [name for name in ("save_checkpoint",) if name in vars(trainer)]
    schedulers = [config.scheduler for config in trainer.lr_scheduler_configs]
    return found + [type(s).__name__ for s in schedulers if type(s) is not torch.optim.lr_scheduler.CosineAnnealingLR]


ALL = ["_clip_gradients", "save_checkpoint"]


class TakenOver(Callback):
    """Looks after every batch at what is taken over."""

    def __init__(self):
        self.after, self.trainer = [], None

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.trainer = trainer
        self.after.append(taken_over(trainer))


PLACES = [
    (GuardSession, "epoch_start"),
    (GuardSession, "batch_start"),
    (GuardSession, "before_backward"),
    (GuardSession, "_observe"),
    (GuardSession, "batch_end"),
    (GuardSession, "_clean_up"),
    (Window, "open"),
]


@pytest.mark.parametrize(("owner", "name"), PLACES, ids=[name for _, name in PLACES])
def test_a_failure_is_reported_once_and_the_run_goes_on_as_if_unguarded(monkeypatch, caplog, owner, name):
    plain = fit(tiny, healthy_batches())
    let_fail(monkeypatch, owner, name, call=1 if name == "epoch_start" else FAILS_AT)
    watch = TakenOver()
    guarded = fit(tiny, healthy_batches(), watch, guard=NaNGuard(verbose=False))

    assert guarded.guard.is_aside
    errors = [record for record in caplog.records if record.name == "nan_callbacks" and record.levelname == "ERROR"]
    assert len(errors) == 1
    assert f"RuntimeError: {name} broke" in errors[0].getMessage()
    assert "steps aside" in errors[0].getMessage()
    assert differences(plain.state, guarded.state) == []
    assert watch.after[0] == ([] if name == "epoch_start" else ALL)
    assert watch.after[FAILS_AT] == []


@pytest.mark.parametrize(("owner", "name"), PLACES, ids=[name for _, name in PLACES])
def test_a_strict_guard_raises_its_own_failure(monkeypatch, owner, name):
    let_fail(monkeypatch, owner, name, call=1)
    with pytest.raises(RuntimeError, match=f"{name} broke"):
        fit(tiny, healthy_batches(), guard=strict_guard())


@pytest.mark.parametrize("broken", [(Window, "undo_forward"), (GuardSession, "_with_evidence")], ids=str)
@pytest.mark.parametrize(
    "options",
    [{}, {"gradient_clip_val": 0.01, "gradient_clip_algorithm": "value"}, {"scale": 64.0}],
    ids=["no-clipping", "clip-value", "fp16-scaler"],
)
def test_a_failure_while_dropping_a_step_does_not_break_the_run(monkeypatch, caplog, options, broken):
    let_fail(monkeypatch, *broken, call=1)
    guarded = fit(tiny, spoiled(healthy_batches(), [FAILS_AT]), guard=NaNGuard(verbose=False), **options)
    assert guarded.guard.is_aside
    assert sum("steps aside" in record.getMessage() for record in caplog.records) == 1
    assert guarded.trainer.global_step == len(healthy_batches())
    if broken[1] == "undo_forward":  # the gradients were gone by then
        assert all(bool(torch.isfinite(value).all()) for value in guarded.state["parameters"].values())


def test_everything_is_given_back_after_the_fit():
    watch = TakenOver()
    guarded = fit(tiny, healthy_batches(3), watch, guard=strict_guard())
    assert watch.after == [ALL] * 3
    assert taken_over(guarded.trainer) == []


class Breaks(TinyModule):
    """Fails in the middle of an epoch."""

    def training_step(self, batch, batch_idx):
        if batch_idx == 2:
            raise ValueError("the user's own mistake")
        return super().training_step(batch, batch_idx)


@pytest.mark.parametrize("strict", [True, False])
def test_everything_is_given_back_after_an_error_of_the_user(strict):
    guard, watch = NaNGuard(strict=strict, verbose=False), TakenOver()
    with pytest.raises(ValueError, match="the user's own mistake"):
        fit(lambda: Breaks(scheduler=SCHEDULERS["Cosine"]), healthy_batches(), watch, guard=guard)
    assert watch.after == [ALL] * 2
    assert taken_over(watch.trainer) == []
    assert not guard.is_aside


class OwnSave(Callback):
    """Replaces `save_checkpoint` before the guard does, as some tracking tools do."""

    def __init__(self):
        self.replacement, self.calls = lambda *args, **kwargs: self.calls.append(args), []

    def setup(self, trainer, pl_module, stage):
        trainer.save_checkpoint = self.replacement

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        trainer.save_checkpoint("a path")


def test_somebody_elses_replacement_is_used_and_given_back():
    own = OwnSave()
    run = fit(tiny, healthy_batches(3), own, guard=strict_guard())
    assert own.calls == [("a path",)] * 3
    assert run.trainer.save_checkpoint is own.replacement


class WrapsClipping(Callback):
    """Wraps what the guard has put in place, and stays."""

    def __init__(self):
        self.calls = 0

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if batch_idx == 1:
            plugin = trainer.precision_plugin
            inner = plugin._clip_gradients

            def wrapper(*args, **kwargs):
                self.calls += 1
                return inner(*args, **kwargs)

            plugin._clip_gradients = self.wrapper = wrapper


def test_a_replacement_on_top_of_ours_is_left_in_place_and_works_on():
    wraps = WrapsClipping()
    plain = fit(tiny, healthy_batches(4), gradient_clip_val=0.1, max_epochs=1)
    guarded = fit(tiny, healthy_batches(4), wraps, guard=strict_guard(), gradient_clip_val=0.1)
    assert differences(plain.state, guarded.state) == []
    assert guarded.trainer.precision_plugin._clip_gradients is wraps.wrapper
    assert wraps.calls == 3
    assert wraps.wrapper(guarded.module, guarded.trainer.optimizers[0]) is None
