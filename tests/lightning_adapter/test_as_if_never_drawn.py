"""After a dropped batch nothing of it remains: the run is bitwise the run whose data never held it."""

from typing import Any

import pytest
import torch
from pytorch_lightning import Callback
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, IterableDataset, Sampler

from tests.lightning_adapter.runs import (
    FAULTS,
    OPTIMIZERS,
    SCHEDULERS,
    STEPS,
    BatchDataset,
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

AT_FAULT = 6
"""Position of the bad batch where the position does not matter."""


def assert_as_if_never_drawn(
    module,
    at: tuple[int, ...] = (AT_FAULT,),
    fault: str = "nan",
    *,
    dropped: tuple[int, ...] | None = None,
    skips: int | None = None,
    augment: bool = False,
    batches: list | None = None,
    guard: dict[str, Any] | None = None,
    **options: Any,
) -> None:
    """Compare a guarded run over spoiled data with an unguarded one over the data without the ``dropped`` batches."""
    batches = healthy_batches() if batches is None else batches
    dropped = at if dropped is None else dropped
    plain = fit(module, loader(without(batches, dropped), augment=augment), **options)
    bad = loader(spoiled(batches, at, fault), augment=augment)
    guarded = fit(module, bad, guard=strict_guard(**(guard or {})), **options)
    assert differences(plain.state, guarded.state) == []
    assert guarded.guard.summary["skipped_steps"] == (len(at) if skips is None else skips)
    assert guarded.guard.summary["rollbacks"] == 0


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_optimizer_forgets_every_kind_of_bad_batch(optimizer, fault):
    assert_as_if_never_drawn(lambda: TinyModule(OPTIMIZERS[optimizer]), fault=fault)


@pytest.mark.parametrize(
    ("at", "fault"),
    [
        ((0,), "nan"),
        ((0,), "backward-nan"),
        ((1,), "nan"),
        ((STEPS - 1,), "nan"),
        ((STEPS - 1,), "spike"),
        ((0, 1, 2), "nan"),
        ((4, 5, 9, 13), "nan"),
        ((5, 7, 9), "spike"),
    ],
    ids=str,
)
@pytest.mark.parametrize("optimizer", ["AdamW-foreach", "SGD-nesterov", "LBFGS"])
def test_every_position_is_forgotten(optimizer, at, fault):
    assert_as_if_never_drawn(lambda: TinyModule(OPTIMIZERS[optimizer]), at, fault)


@pytest.mark.parametrize(
    ("at", "fault"), [((5, 6, 9), "spike"), ((0, 1), "backward-nan"), ((6, 7), "backward-nan")], ids=str
)
@pytest.mark.parametrize("optimizer", ["AdamW-foreach", "SGD-nesterov", "LBFGS"])
def test_finite_batches_in_a_row_are_forgotten_where_nothing_random_is_drawn(optimizer, at, fault):
    assert_as_if_never_drawn(lambda: DrawlessModule(OPTIMIZERS[optimizer]), at, fault)


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("at", [(0,), (AT_FAULT,), (STEPS - 1,)], ids=str)
def test_a_scheduler_does_not_advance_with_a_dropped_step(scheduler, at):
    assert_as_if_never_drawn(lambda: TinyModule(scheduler=SCHEDULERS[scheduler]), at)


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize(
    ("optimizer", "options"),
    [
        ("AdamW-foreach", {"precision": "bf16-mixed"}),
        ("SGD-nesterov", {"precision": "bf16-mixed", "gradient_clip_val": 0.1}),
        ("AdamW-foreach", {"precision": "bf16-true"}),
        ("AdamW-fused", {"precision": "64-true"}),
        ("SGD-nesterov", {"precision": "64-true", "accumulate_grad_batches": 2}),
        ("AdamW-foreach", {"gradient_clip_val": 0.1}),
        ("AdamW-foreach", {"gradient_clip_val": 0.01, "gradient_clip_algorithm": "value"}),
        ("SGD-nesterov", {"gradient_clip_val": 0.01, "gradient_clip_algorithm": "value"}),
    ],
    ids=str,
)
def test_precision_and_clipping_make_no_difference(optimizer, options, fault):
    dtype = {"bf16-true": torch.bfloat16, "64-true": torch.float64}.get(options.get("precision"), torch.float32)
    dropped = (AT_FAULT, AT_FAULT + 1) if "accumulate_grad_batches" in options else (AT_FAULT,)
    assert_as_if_never_drawn(
        lambda: TinyModule(OPTIMIZERS[optimizer], SCHEDULERS["Cosine"]),
        fault=fault,
        dropped=dropped,
        skips=1,
        batches=healthy_batches(dtype=dtype),
        **options,
    )


@pytest.mark.parametrize("fault", ["nan", "spike"])
@pytest.mark.parametrize(
    ("optimizer", "options"),
    [
        ("AdamW-foreach", {}),
        ("SGD-nesterov", {"gradient_clip_val": 0.1}),
        ("SGD-nesterov", {"gradient_clip_val": 0.01, "gradient_clip_algorithm": "value"}),
        ("AdamW-fused", {}),
        ("AdamW-foreach", {"accumulate_grad_batches": 2}),
        ("AdamW-fused", {"accumulate_grad_batches": 2}),
    ],
    ids=str,
)
def test_a_gradient_scaler_forgets_with_us(optimizer, options, fault):
    dropped = (AT_FAULT, AT_FAULT + 1) if "accumulate_grad_batches" in options else (AT_FAULT,)
    assert_as_if_never_drawn(
        lambda: TinyModule(OPTIMIZERS[optimizer], SCHEDULERS["StepLR"]),
        fault=fault,
        dropped=dropped,
        skips=1,
        scale=64.0,
        **options,
    )


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize(
    ("at", "dropped"), [(0, (0, 1)), (6, (6, 7)), (7, (6, 7)), (13, (12, 13)), (14, (14,))], ids=str
)
def test_the_whole_accumulation_window_is_dropped(at, dropped, fault):
    if fault == "spike" and at == 0:
        fault = "nan"  # a finite value can only be a spike against a history
    assert_as_if_never_drawn(
        lambda: TinyModule(OPTIMIZERS["SGD-nesterov"], SCHEDULERS["LambdaLR"]),
        (at,),
        fault,
        dropped=dropped,
        batches=healthy_batches(15),
        accumulate_grad_batches=2,
    )


@pytest.mark.parametrize("at", [(1,), (AT_FAULT,), (AT_FAULT, AT_FAULT + 2), (STEPS - 1,)], ids=str)
def test_augmentation_in_the_main_process_draws_the_same_numbers(at):
    assert_as_if_never_drawn(TinyModule, at, augment=True)


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("at", [AT_FAULT, STEPS - 1], ids=str)
def test_a_batch_that_is_bad_in_every_epoch_is_forgotten_in_every_epoch(at, fault):
    epochs = 3
    batches = healthy_batches()
    plain = fit(TinyModule, without(batches, [at]), max_epochs=epochs)
    guarded = fit(TinyModule, spoiled(batches, [at], fault), max_epochs=epochs, guard=strict_guard())
    assert differences(plain.state, guarded.state) == []
    assert guarded.guard.summary["skipped_steps"] == epochs


class Permutation(Sampler):
    """A new order in every epoch, drawn from the global stream, without some of the batches."""

    def __init__(self, count, left_out=()):
        self.count, self.left_out = count, left_out

    def __iter__(self):
        return (index for index in torch.randperm(self.count).tolist() if index not in self.left_out)

    def __len__(self):
        return self.count - len(self.left_out)


@pytest.mark.parametrize("fault", ["nan", "backward-nan"])
def test_every_later_epoch_draws_the_same_order(fault):
    def shuffled(batches, left_out=()):
        return DataLoader(BatchDataset(batches), batch_size=None, sampler=Permutation(len(batches), left_out))

    batches = healthy_batches()
    plain = fit(TinyModule, shuffled(batches, [AT_FAULT]), max_epochs=6)
    guarded = fit(TinyModule, shuffled(spoiled(batches, [AT_FAULT], fault)), max_epochs=6, guard=strict_guard())
    assert differences(plain.state, guarded.state) == []
    assert guarded.guard.summary["skipped_steps"] == 6


class Stream(IterableDataset):
    """Batches of unknown number: Lightning fetches each one before the last one is trained on."""

    def __init__(self, batches):
        self.batches = batches

    def __iter__(self):
        return iter(self.batches)


@pytest.mark.parametrize("at", [0, AT_FAULT, STEPS - 1], ids=str)
def test_a_stream_of_unknown_length_is_no_exception(at):
    batches = healthy_batches()
    plain = fit(TinyModule, DataLoader(Stream(without(batches, [at])), batch_size=None), max_epochs=2)
    bad = DataLoader(Stream(spoiled(batches, [at])), batch_size=None)
    guarded = fit(TinyModule, bad, guard=strict_guard(), max_epochs=2)
    assert differences(plain.state, guarded.state) == []


class Validated(TinyModule):
    """Validation draws random numbers as well."""

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", F.mse_loss(self.net(batch[0]), batch[1]) + 0.01 * torch.rand(()))


@pytest.mark.parametrize("at", [0, AT_FAULT, STEPS - 1], ids=str)
def test_validation_after_every_epoch_leaves_the_streams_in_order(at):
    batches, options = healthy_batches(), {"max_epochs": 2, "validation": healthy_batches(2)}
    plain = fit(Validated, without(batches, [at]), **options)
    guarded = fit(Validated, spoiled(batches, [at]), guard=strict_guard(), **options)
    assert differences(plain.state, guarded.state) == []


class Streams(Callback):
    """Reads the random streams after validation and after every batch."""

    def __init__(self):
        self.after_validation, self.after_batch = [], []

    def on_validation_end(self, trainer, pl_module):
        self.after_validation.append(random_state())

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.after_batch.append(random_state())


@pytest.mark.parametrize("augment", [False, True], ids=["plain", "augmented"])
def test_a_batch_dropped_right_after_validation_leaves_the_streams_as_validation_left_them(augment):
    streams = Streams()
    bad = loader(spoiled(healthy_batches(), [4]), augment=augment)
    fit(Validated, bad, streams, guard=strict_guard(), validation=healthy_batches(2), val_check_interval=4)
    assert differences(streams.after_validation[0], streams.after_batch[4]) == []
    assert differences(streams.after_batch[3], streams.after_batch[4]) != []


class OddBuffers(TinyModule):
    """Buffers that a forward pass writes in other ways than batch normalisation with a fixed momentum."""

    def __init__(self):
        super().__init__()
        self.net[0] = nn.utils.parametrizations.spectral_norm(self.net[0])
        self.net[1] = nn.BatchNorm1d(16, momentum=None)
        self.register_buffer("replaced", torch.zeros(()))
        self.register_buffer("absent", None)

    def training_step(self, batch, batch_idx):
        self.replaced = self.replaced + batch[0].mean()
        if self.absent is None:
            self.absent = batch[0].mean()
        return super().training_step(batch, batch_idx)


@pytest.mark.parametrize(("at", "fault"), [(0, "nan"), (AT_FAULT, "nan"), (AT_FAULT, "spike")], ids=str)
def test_buffers_that_are_replaced_or_iterated_or_come_late_are_put_back(at, fault):
    assert_as_if_never_drawn(OddBuffers, (at,), fault)


def test_without_the_guard_every_fault_leaves_a_trace():
    batches = healthy_batches()
    for fault in FAULTS:
        plain = fit(TinyModule, without(batches, [AT_FAULT]))
        unguarded = fit(TinyModule, spoiled(batches, [AT_FAULT], fault))
        assert "/parameters/net.0.weight" in differences(plain.state, unguarded.state)
