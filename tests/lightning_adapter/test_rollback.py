"""A rollback goes back exactly: the run is bitwise the run whose data never held the batches since the snapshot."""

from typing import Any

import pytest
import torch
from pytorch_lightning import Callback

from nan_callbacks.core import Action, Decision
from tests.lightning_adapter.runs import (
    OPTIMIZERS,
    SCHEDULERS,
    DrawlessModule,
    TinyModule,
    differences,
    fit,
    healthy_batches,
    loader,
    random_state,
    spoiled,
    strict_guard,
    without,
)

CADENCE = {"snapshot_every_n_steps": 4, "probation_steps": 2}
"""Snapshots before the steps 0 (trusted at once), 4 (trusted after step 5) and 8 (trusted after step 9)."""


class RollBackAfter(Callback):
    """Rolls back after some steps without touching the learning rate, so that the mechanism alone is compared."""

    def __init__(self, guard, *steps: int):
        self.guard, self.steps = guard, steps
        self.restored: list[int] = []
        self.moved: list[str] = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        done = self.guard.summary["steps"] - 1
        if done not in self.steps or (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        ledger = self.guard._monitor.ledger
        target = ledger.choose(ledger.target())
        decision = Decision(action=Action.ROLLBACK, restore_slot=target.slot, restore_step=target.step)
        before = addresses(trainer, pl_module)
        self.guard._session.act(decision)
        after = addresses(trainer, pl_module)
        self.moved += [name for name in after if before[name] != after[name]]
        self.restored.append(target.step)


def addresses(trainer, module) -> dict[str, int]:
    """Where every parameter, buffer and tensor of the optimizer state lies in memory."""
    tensors = dict(module.named_parameters()) | dict(module.named_buffers())
    for number, (parameter, state) in enumerate(trainer.optimizers[0].state.items()):
        tensors |= {f"{number}/{key}": value for key, value in state.items() if isinstance(value, torch.Tensor)}
        tensors[f"{number}"] = parameter
    return {name: tensor.data_ptr() for name, tensor in tensors.items()}


def assert_rolls_back(
    module, after: tuple[int, ...], restored: tuple[int, ...], *, augment: bool = False, **options: Any
) -> None:
    """Compare a run with rollbacks with an unguarded one over the data without the batches that they took back."""
    batches, window = healthy_batches(16), options.get("accumulate_grad_batches", 1)
    dropped = {
        step * window + micro
        for first, last in zip(restored, after, strict=True)
        for step in range(first, last + 1)
        for micro in range(window)
    }
    guard = strict_guard(**CADENCE)
    rollback = RollBackAfter(guard, *after)
    guarded = fit(module, loader(batches, augment=augment), rollback, guard=guard, **options)
    plain = fit(module, loader(without(batches, dropped), augment=augment), **options)
    assert rollback.restored == list(restored)
    assert rollback.moved == []
    assert differences(plain.state, guarded.state) == []


EARLY = ((2,), (0,))
LATE = ((7,), (4,))
SECOND = ((12,), (8,))
ON_PROBATION = ((8,), (4,))
TWICE = ((6, 8), (4, 4))


@pytest.mark.parametrize(("after", "restored"), [EARLY, LATE], ids=["to-the-start", "to-a-snapshot"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_optimizer_goes_back(optimizer, after, restored):
    assert_rolls_back(lambda: TinyModule(OPTIMIZERS[optimizer]), after, restored)


@pytest.mark.parametrize(("after", "restored"), [EARLY, SECOND], ids=["to-the-start", "to-a-snapshot"])
@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_every_scheduler_goes_back(scheduler, after, restored):
    assert_rolls_back(lambda: TinyModule(OPTIMIZERS["SGD-nesterov"], SCHEDULERS[scheduler]), after, restored)


@pytest.mark.parametrize(
    ("after", "restored"), [ON_PROBATION, TWICE, ((1, 3), (0, 0))], ids=["on-probation", "twice", "twice-to-the-start"]
)
def test_only_a_trusted_snapshot_is_restored_and_it_can_be_restored_again(after, restored):
    assert_rolls_back(lambda: TinyModule(scheduler=SCHEDULERS["Cosine"]), after, restored)


@pytest.mark.parametrize(
    ("optimizer", "options"),
    [
        ("AdamW-foreach", {"precision": "bf16-mixed"}),
        ("AdamW-foreach", {"scale": 64.0}),
        ("AdamW-fused", {"scale": 64.0}),
        ("SGD-nesterov", {"gradient_clip_val": 0.1}),
    ],
    ids=str,
)
@pytest.mark.parametrize(("after", "restored"), [EARLY, SECOND], ids=["to-the-start", "to-a-snapshot"])
def test_precision_and_scaler_go_back(optimizer, options, after, restored):
    assert_rolls_back(lambda: TinyModule(OPTIMIZERS[optimizer], SCHEDULERS["OneCycle"]), after, restored, **options)


@pytest.mark.parametrize(("after", "restored"), [((2,), (0,)), ((6,), (4,))], ids=["to-the-start", "to-a-snapshot"])
def test_accumulation_goes_back_by_whole_windows(after, restored):
    assert_rolls_back(lambda: TinyModule(OPTIMIZERS["SGD-nesterov"]), after, restored, accumulate_grad_batches=2)


@pytest.mark.parametrize(("after", "restored"), [LATE, SECOND], ids=str)
def test_the_streams_of_an_augmented_dataset_go_back(after, restored):
    assert_rolls_back(TinyModule, after, restored, augment=True)


def test_across_epochs_the_random_streams_move_forward():
    """The order of the next epoch's data is drawn from them: going back would repeat an epoch's order."""
    batches, guard = healthy_batches(6), strict_guard(**CADENCE)
    streams = {}

    class Watch(RollBackAfter):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            before = random_state()
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
            if self.restored and not streams:
                streams.update(before=before, after=random_state())

    rollback = Watch(guard, 7)
    guarded = fit(TinyModule, batches, rollback, guard=guard, max_epochs=2)
    assert rollback.restored == [4]
    assert differences(streams["before"], streams["after"]) == []
    assert guarded.trainer.current_epoch == 2


class HalveFrom(Callback):
    """The reference of a cut: halves the learning rate before a step."""

    def __init__(self, step: int):
        self.step = step

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if batch_idx == self.step:
            for group in trainer.optimizers[0].param_groups:
                group["lr"] *= 0.5


@pytest.mark.parametrize("optimizer", ["SGD-nesterov", "AdamW-foreach", "AdamW-tensor-lr", "LBFGS"])
@pytest.mark.parametrize(("bad", "restored"), [((1, 2, 3), 0), ((6, 7, 8), 4)], ids=["to-the-start", "to-a-snapshot"])
def test_three_bad_steps_in_a_row_lead_back_to_the_snapshot_and_to_half_the_learning_rate(optimizer, bad, restored):
    batches = healthy_batches(16)
    guarded = fit(
        lambda: DrawlessModule(OPTIMIZERS[optimizer]),
        spoiled(batches, bad, "backward-nan"),
        guard=strict_guard(**CADENCE),
    )
    kept = without(batches, range(restored, bad[-1] + 1))
    plain = fit(lambda: DrawlessModule(OPTIMIZERS[optimizer]), kept, HalveFrom(restored))

    assert differences(plain.state, guarded.state) == []
    summary = guarded.guard.summary
    assert (summary["skipped_steps"], summary["rollbacks"], summary["lr_cuts"]) == (3, 1, 1)
    assert [event["restored_step"] for event in guarded.guard.events if event["event"] == "rollback"] == [restored]
