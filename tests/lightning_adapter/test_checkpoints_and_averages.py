"""Non-finite weights reach no checkpoint, no validation, no average, and not the end of the run."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.callbacks import EMAWeightAveraging, ModelCheckpoint, OnExceptionCheckpoint
from torch import Tensor, nn
from torch.optim import SGD
from torch.optim.lr_scheduler import LambdaLR

from tests.lightning_adapter.set_ups import (
    Batches,
    OptimizerMakesNaN,
    Regression,
    equal,
    finite,
    make_batches,
    make_trainer,
    quiet_guard,
    weights,
)

BROKEN_AT = 5
"""Where `OptimizerMakesNaN` breaks if not told otherwise."""


class ValidatesItsWeights(OptimizerMakesNaN):
    """Notes in each validation whether its weights are finite."""

    def __init__(self) -> None:
        super().__init__()
        self.validated: list[bool] = []

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.validated.append(finite(self.parameters()))


class RaiseAt(Callback):
    """A failure of the user's code right after a step."""

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        if trainer.global_step == BROKEN_AT + 1:
            raise KeyError("a bug of the user")


def saved_tensors(path: Path) -> list[Tensor]:
    """Weights and optimizer moments of a checkpoint."""
    checkpoint = torch.load(path, weights_only=True)
    moments = [entry for state in checkpoint["optimizer_states"] for entry in state["state"].values()]
    return [*checkpoint["state_dict"].values(), *(tensor for entry in moments for tensor in entry.values())]


def fit(module: Regression, *callbacks: Any, batches: int = 10, **settings: Any) -> Trainer:
    trainer = make_trainer(*callbacks, enable_checkpointing=True, **settings)
    trainer.fit(module, make_batches(batches))
    return trainer


WAYS_TO_SAVE: dict[str, Callable[[Path], ModelCheckpoint]] = {
    "every step": lambda folder: ModelCheckpoint(folder, every_n_train_steps=1, save_top_k=-1),
    "the last one": lambda folder: ModelCheckpoint(folder, every_n_train_steps=1, save_top_k=0, save_last=True),
    "every epoch": lambda folder: ModelCheckpoint(folder, every_n_epochs=1, save_last="link"),
}


@pytest.mark.parametrize("way", WAYS_TO_SAVE)
@pytest.mark.parametrize("broken_at", [0, BROKEN_AT, 9], ids=["first step", "middle", "last step"])
def test_no_checkpoint_holds_weights_that_the_optimizer_broke(way: str, broken_at: int, tmp_path: Path):
    guard, module = quiet_guard(), OptimizerMakesNaN(broken_at)
    fit(module, guard, WAYS_TO_SAVE[way](tmp_path))

    saved = sorted(tmp_path.glob("*.ckpt"))
    assert saved
    assert all(finite(saved_tensors(path)) for path in saved)
    assert finite(weights(module))
    assert guard.summary["rollbacks"] == 1
    assert [event["code"] for event in guard.events if event["event"] == "incident"] == ["NAN103"]


def test_without_the_guard_the_checkpoints_are_broken(tmp_path: Path):
    fit(OptimizerMakesNaN(), WAYS_TO_SAVE["every step"](tmp_path))

    assert sum(not finite(saved_tensors(path)) for path in tmp_path.glob("*.ckpt")) == 5


@pytest.mark.filterwarnings("ignore:.*without a model", "ignore:.*there is no last checkpoint available")
@pytest.mark.parametrize(
    "make",
    [lambda folder: ModelCheckpoint(folder, save_on_exception=True), OnExceptionCheckpoint],
    ids=["own", "other"],
)
def test_a_checkpoint_written_on_an_exception_is_finite(make: Callable[[Path], Any], tmp_path: Path):
    with pytest.raises(KeyError, match="a bug of the user"):
        fit(OptimizerMakesNaN(), quiet_guard(), RaiseAt(), make(tmp_path))

    (saved,) = tmp_path.glob("*.ckpt")
    assert finite(saved_tensors(saved))


@pytest.mark.filterwarnings("ignore:Be aware that when using", "ignore:You're resuming from a checkpoint")
def test_a_run_resumed_from_a_checkpoint_written_on_an_exception_remembers_what_happened(tmp_path: Path):
    with pytest.raises(KeyError):
        fit(OptimizerMakesNaN(), quiet_guard(), RaiseAt(), ModelCheckpoint(tmp_path, save_on_exception=True))
    (saved,) = tmp_path.glob("*.ckpt")
    guard = quiet_guard()
    make_trainer(guard, max_epochs=2).fit(OptimizerMakesNaN(), make_batches(10), ckpt_path=saved)

    assert guard.summary["rollbacks"] == 1
    assert guard.summary["lr_scale"] == 0.5


def test_weights_broken_by_the_very_last_step_are_restored_when_nothing_is_saved():
    module, guard = OptimizerMakesNaN(broken_at=9), quiet_guard()
    make_trainer(guard).fit(module, make_batches(10))

    assert finite(weights(module))
    assert guard.events[-1]["event"] == "summary"


def test_validation_never_sees_broken_weights():
    def validated(*guards: Any) -> list[bool]:
        module = ValidatesItsWeights()
        trainer = make_trainer(*guards, val_check_interval=2)
        trainer.fit(module, make_batches(10), make_batches(1))
        return module.validated

    assert validated() == [True, True, False, False, False]
    assert validated(quiet_guard()) == [True] * 5


def averaging() -> EMAWeightAveraging:
    return EMAWeightAveraging(decay=0.9)


def normalised(configure: Any = None) -> Regression:
    """A module whose buffers are averaged as well."""
    module = Regression(configure)
    torch.manual_seed(0)
    module.net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
    return module


class KeepAverage(Callback):
    """The averaged weights after each batch, before they replace the module's own at the end of the fit."""

    def __init__(self, average: EMAWeightAveraging) -> None:
        self.average = average
        self.states: list[list[Tensor]] = []

    def on_train_batch_end(self, *_: Any) -> None:
        self.states.append(weights(self.average._average_model))


def averaged(batches: Batches, *guards: Any, guard_first: bool = True, configure: Any = None) -> list[list[Tensor]]:
    average = averaging()
    callbacks = [*guards, average] if guard_first else [average, *guards]
    keep = KeepAverage(average)
    make_trainer(*callbacks, keep).fit(normalised(configure), batches)
    return keep.states


@pytest.mark.parametrize("guard_first", [True, False], ids=["guard before average", "average before guard"])
@pytest.mark.parametrize("spoiled", [0, 4, 7])
def test_the_average_is_as_if_the_batch_had_never_been_drawn(spoiled: int, guard_first: bool):
    rest = Batches([batch for index, batch in enumerate(make_batches(8)) if index != spoiled])

    guarded = averaged(make_batches(8, spoiled=[spoiled]), quiet_guard(), guard_first=guard_first)
    assert equal(guarded[-1], averaged(rest)[-1])


def test_without_the_guard_the_average_is_lost():
    assert not finite(averaged(make_batches(8, spoiled=[4]))[-1])


@pytest.mark.parametrize("guard_first", [True, False], ids=["guard before average", "average before guard"])
def test_a_rollback_rewinds_the_average(guard_first: bool):
    class BreaksThreeSteps(Callback):
        def on_before_backward(self, trainer: Trainer, module: Regression, loss: Tensor) -> None:
            if trainer.global_step in (9, 10, 11):
                loss.register_hook(lambda gradient: gradient * float("nan"))

    def halved_from_the_fifth_step(module: nn.Module) -> Any:
        optimizer = SGD(module.parameters(), lr=0.05)
        scheduler = LambdaLR(optimizer, lambda step: 1.0 if step < 4 else 0.5)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    batches = make_batches(20)
    guard = quiet_guard(snapshot_every_n_steps=4, probation_steps=2)
    rolled_back = averaged(batches, BreaksThreeSteps(), guard, guard_first=guard_first)
    never_drawn = Batches([*batches.batches[:4], *batches.batches[12:]])

    assert [event["restored_step"] for event in guard.events if event["event"] == "rollback"] == [4]
    assert equal(rolled_back[-1], averaged(never_drawn, configure=halved_from_the_fifth_step)[-1])


def test_restored_weights_are_not_averaged_as_if_a_step_had_led_to_them():
    """A rollback after a step that went through, as divergence calls for one."""

    class RestoreAt(Callback):
        def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
            if trainer.global_step == 6:
                guard._session.snapshots.restore(0)

    guard, average = quiet_guard(), averaging()
    keep, module = KeepAverage(average), normalised()
    make_trainer(guard, RestoreAt(), average, keep).fit(module, make_batches(7))

    untouched = [torch.tensor(0), *weights(normalised())]
    assert sorted(map(str, keep.states[5])) == sorted(map(str, untouched))


def test_the_average_survives_weights_that_the_optimizer_broke(tmp_path: Path):
    average, module = averaging(), OptimizerMakesNaN()
    checkpoint = ModelCheckpoint(tmp_path, every_n_train_steps=1, save_top_k=-1)
    fit(module, quiet_guard(), average, checkpoint)

    assert finite(weights(average._average_model))
    assert all(finite(saved_tensors(path)) for path in tmp_path.glob("*.ckpt"))
