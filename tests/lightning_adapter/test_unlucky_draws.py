"""A failure that random numbers make costs two skips: the next batch does not draw the same numbers for ever."""

import random

import numpy as np
import pytest
import torch
from pytorch_lightning import LightningModule
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from tests.lightning_adapter.runs import (
    FEATURES,
    BatchDataset,
    differences,
    fit,
    healthy_batches,
    is_finite,
    loader,
    spoiled,
    strict_guard,
    without,
)

STREAMS = {
    "torch": lambda: float(torch.rand(())),
    "numpy": lambda: float(np.random.rand()),  # noqa: NPY002
    "python": random.random,
}
UNLUCKY = 0.03
"""Numbers below it make a step fail."""


class Noisy(LightningModule):
    """Draws a number in every step; an unlucky one makes the gradients NaN."""

    def __init__(self, draw=STREAMS["torch"], unlucky: float = UNLUCKY) -> None:
        super().__init__()
        self.net = nn.Linear(FEATURES, 1)
        self.draw, self.unlucky = draw, unlucky
        self.drawn: list[float] = []

    def training_step(self, batch, batch_idx):
        self.drawn.append(self.draw())
        return F.mse_loss(self.net(batch[0]), batch[1]) * (float("nan") if self.drawn[-1] < self.unlucky else 1.0)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)


class ByHand(Noisy):
    """The same with steps of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch, batch_idx):
        optimizer = self.optimizers()
        optimizer.zero_grad()
        self.manual_backward(super().training_step(batch, batch_idx))
        optimizer.step()


class Augmented(BatchDataset):
    """Draws a number for every batch in the main process; an unlucky one makes it NaN."""

    def __init__(self, batches, draw) -> None:
        super().__init__(batches)
        self.draw, self.drawn = draw, []

    def __getitem__(self, index):
        x, y = super().__getitem__(index)
        self.drawn.append(self.draw())
        return x * (float("nan") if self.drawn[-1] < UNLUCKY else 1.0), y


def assert_each_failure_costs_two_skips_at_most(run, *drawn: list[float]) -> None:
    summary = run.guard.summary
    failures = sum(len({number for number in numbers if number < UNLUCKY}) for numbers in drawn)
    assert failures > 0
    assert failures < summary["skipped_steps"] <= 2 * failures  # one only if another failure came right before
    assert (summary["rollbacks"], summary["stopped"]) == (0, False)
    assert is_finite(run)


@pytest.mark.parametrize("stream", STREAMS)
def test_numbers_that_the_model_draws(stream):
    run = fit(lambda: Noisy(STREAMS[stream]), healthy_batches(120), guard=strict_guard())

    assert_each_failure_costs_two_skips_at_most(run, run.module.drawn)


@pytest.mark.parametrize("stream", STREAMS)
def test_numbers_that_a_data_set_draws_in_the_main_process(stream):
    data = Augmented(healthy_batches(120), STREAMS[stream])
    run = fit(lambda: Noisy(lambda: 1.0), DataLoader(data, batch_size=None), guard=strict_guard())

    assert_each_failure_costs_two_skips_at_most(run, data.drawn)


def test_numbers_that_both_of_them_draw():
    data = Augmented(healthy_batches(120), STREAMS["torch"])
    run = fit(Noisy, DataLoader(data, batch_size=None), guard=strict_guard())

    assert_each_failure_costs_two_skips_at_most(run, data.drawn, run.module.drawn)


@pytest.mark.parametrize(
    ("module", "options"), [(Noisy, {"accumulate_grad_batches": 3}), (ByHand, {})], ids=["windows", "by hand"]
)
def test_windows_and_steps_by_hand(module, options):
    run = fit(module, healthy_batches(120), guard=strict_guard(), **options)

    assert_each_failure_costs_two_skips_at_most(run, run.module.drawn)


def test_after_a_rollback_no_number_of_the_failed_steps_is_drawn_again():
    batches = healthy_batches(16)
    faulty = [(x, y + 1e25) if index in (5, 6, 7) else (x, y) for index, (x, y) in enumerate(batches)]
    run = fit(lambda: Noisy(unlucky=0.0), loader(faulty), guard=strict_guard(warmup_steps=4))
    drawn = run.module.drawn

    assert run.guard.summary["rollbacks"] == 1
    assert drawn[5] == drawn[6]
    assert len({*drawn}) == len(drawn) - 1


def test_the_failed_step_is_examined_with_its_own_numbers():
    """The first failure is that of a batch, the second one of a number, in which the same step must fail again."""
    probe = fit(Noisy, healthy_batches(120)).module
    unlucky = next(index for index, number in enumerate(probe.drawn) if number < UNLUCKY)
    run = fit(Noisy, spoiled(healthy_batches(120), [unlucky]), guard=strict_guard())

    first, second = run.guard.incidents[:2]
    assert (first.step, second.step) == (unlucky, unlucky + 1)
    assert second.diagnosis is not None
    assert "still non-finite" in str(second.diagnosis.trials[0])


def test_non_finite_batches_in_a_row_give_the_numbers_of_the_model_back():
    batches = healthy_batches(30)
    plain = fit(lambda: Noisy(unlucky=0.0), without(batches, [4, 5, 6, 7]))
    guarded = fit(lambda: Noisy(unlucky=0.0), spoiled(batches, [4, 5, 6, 7]), guard=strict_guard())

    assert guarded.guard.summary["skipped_steps"] == 4
    assert differences(plain.state, guarded.state) == []
