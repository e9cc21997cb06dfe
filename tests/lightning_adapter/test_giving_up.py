"""The end of the ladder, and the settings that leave steps alone or stop at the first one."""

from typing import Any

import pytest
import torch
from pytorch_lightning import Callback, Trainer
from torch import Tensor
from torch.optim import SGD, lr_scheduler

from nan_callbacks.errors import TrainingStoppedError
from nan_callbacks.lightning import NaNGuard
from tests.lightning_adapter.set_ups import Regression, equal, finite, make_batches, make_trainer, quiet_guard, weights

HOPELESS = {"max_rollbacks": 0, "snapshot_every_n_steps": 4, "probation_steps": 2}
"""Gives up instead of the first rollback, with the state before step 4 as the last known-good one."""


class BreaksThreeSteps(Regression):
    """Three non-finite losses in a row from finite batches; every other step is healthy."""

    def __init__(self, first: int = 8) -> None:
        super().__init__(self.schedule)
        self.first = first

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = super().training_step(batch, batch_idx)
        broken = self.first <= self.trainer.global_step < self.first + 3
        return loss * float("nan") if broken else loss

    def schedule(self, module: Any) -> Any:
        optimizer = SGD(module.parameters(), lr=0.05, momentum=0.9)
        return [optimizer], [lr_scheduler.ExponentialLR(optimizer, 0.9)]


class Keep(Callback):
    """The weights before each step, and whatever the guard might leave behind."""

    def __init__(self) -> None:
        self.states: list[list[Tensor]] = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: Regression, *_: Any) -> None:
        self.states.append(weights(pl_module))


def fit(guard: NaNGuard, **settings: Any) -> tuple[Trainer, Regression, Keep]:
    keep, module = Keep(), BreaksThreeSteps()
    trainer = make_trainer(guard, keep, **settings)
    trainer.fit(module, make_batches(6))
    return trainer, module, keep


def test_giving_up_ends_the_training_in_an_orderly_way():
    guard = quiet_guard(**HOPELESS)
    trainer, module, keep = fit(guard, max_epochs=10)

    assert trainer.state.finished
    assert guard.summary["steps"] == 11  # not one more after the third bad one
    assert guard.summary["stopped"]
    assert guard.summary["stop_reason"].startswith("3 steps in a row were dropped")
    assert [event["event"] for event in guard.events][-2:] == ["stop", "summary"]
    assert guard.events[-2]["restored_step"] == 4
    assert equal(weights(module), keep.states[4])


def test_until_a_minimum_of_epochs_is_over_the_weights_stay_as_restored():
    guard = quiet_guard(**HOPELESS)
    trainer, module, keep = fit(guard, min_epochs=4, max_epochs=10)

    assert trainer.current_epoch == 4
    assert guard.summary["steps"] == 24
    assert all(equal(state, keep.states[4]) for state in keep.states[11:])
    assert equal(weights(module), keep.states[4])
    assert sum(event["event"] == "stop" for event in guard.events) == 1


def test_giving_up_can_raise():
    guard = quiet_guard(**HOPELESS, on_give_up="raise")
    keep, module = Keep(), BreaksThreeSteps()
    trainer = make_trainer(guard, keep, max_epochs=10)
    with pytest.raises(TrainingStoppedError, match="NaNGuard stopped the training: 3 steps in a row were dropped"):
        trainer.fit(module, make_batches(6))

    assert guard.summary["stopped"]
    assert not guard.is_aside
    assert guard.events[-1]["event"] == "summary"
    assert equal(weights(module), keep.states[4])
    assert type(trainer.lr_scheduler_configs[0].scheduler) is lr_scheduler.ExponentialLR


def test_the_exception_passes_also_without_strictness():
    with pytest.raises(TrainingStoppedError):
        fit(NaNGuard(**HOPELESS, on_give_up="raise", verbose=False, strict=False), max_epochs=2)


def test_the_whole_ladder_is_climbed_before_giving_up():
    class AlwaysBroken(BreaksThreeSteps):
        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            loss = Regression.training_step(self, batch, batch_idx)
            # Gradients only: a loss that is always NaN would be taken for a value that is broken by itself.
            loss.register_hook(lambda gradient: gradient * float("nan"))
            return loss

    guard, module = quiet_guard(max_rollbacks=2, max_skip_fraction=1.0), AlwaysBroken()
    before = weights(module)
    make_trainer(guard, max_epochs=10).fit(module, make_batches(6))

    kinds = [event["event"] for event in guard.events if event["event"] != "diagnosis"]
    assert kinds == [*["incident"] * 3, "rollback", "reduce_lr"] * 2 + [*["incident"] * 3, "stop", "summary"]
    assert guard.summary["steps"] == 9
    assert equal(weights(module), before)


def unguarded(spoiled: list[int], value: float) -> list[Tensor]:
    module = Regression()
    make_trainer().fit(module, make_batches(12, spoiled=spoiled, value=value))
    return weights(module)


@pytest.mark.parametrize("value", [float("nan"), 1e12], ids=["NaN", "spike"])
def test_observing_reports_and_changes_nothing(value: float):
    guard, module = quiet_guard(on_non_finite="observe", on_spike="observe", warmup_steps=3), Regression()
    make_trainer(guard).fit(module, make_batches(12, spoiled=[6], value=value))

    assert [str(tensor) for tensor in weights(module)] == [str(tensor) for tensor in unguarded([6], value)]
    assert guard.summary["incidents"] > 0
    assert guard.summary["skipped_steps"] == guard.summary["rollbacks"] == 0
    first = guard.events[0]
    assert (first["event"], first["step"], first["skipped"]) == ("incident", 6, False)


@pytest.mark.parametrize(
    ("settings", "value", "reason"),
    [
        ({"on_non_finite": "stop"}, float("nan"), "non-finite gradients: configured to stop"),
        ({"on_spike": "stop", "warmup_steps": 3}, 1e12, "exploding gradient: configured to stop"),
    ],
    ids=["NaN", "spike"],
)
def test_stopping_at_the_first_incident(settings: dict[str, Any], value: float, reason: str):
    guard, module = quiet_guard(**settings), Regression()
    trainer = make_trainer(guard, max_epochs=5)
    trainer.fit(module, make_batches(12, spoiled=[6], value=value))

    assert trainer.current_epoch == 1
    assert guard.summary["stop_reason"] == reason
    assert guard.summary["skipped_steps"] >= 1
    assert finite(weights(module))
    assert torch.stack([tensor.abs().max() for tensor in weights(module)]).max() < 10
