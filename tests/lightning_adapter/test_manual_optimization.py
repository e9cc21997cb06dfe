"""Manual optimisation: every optimizer step is judged on its own."""

import pytest
import torch
from pytorch_lightning import LightningModule
from pytorch_lightning.core.optimizer import LightningOptimizer
from torch import nn
from torch.nn import functional as F

from nan_callbacks.diagnosis.diagnosis import Confidence
from tests.lightning_adapter.runs import (
    FEATURES,
    OPTIMIZERS,
    SCHEDULERS,
    TinyModule,
    differences,
    fit,
    healthy_batches,
    is_finite,
    spoiled,
    strict_guard,
    without,
)

AT_FAULT = 6


class Adversaries(LightningModule):
    """A generator and a discriminator; only the discriminator sees the data.

    Args:
        leave_out: Batch whose discriminator step is not taken: the reference of a dropped step.
    """

    def __init__(self, leave_out: int | None = None):
        super().__init__()
        self.automatic_optimization = False
        self.generator = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, FEATURES))
        self.discriminator = nn.Sequential(nn.Linear(FEATURES, 8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 1))
        self.leave_out = leave_out

    def training_step(self, batch, batch_idx):
        x = batch[0]
        of_generator, of_discriminator = self.optimizers()
        fake = self.generator(torch.randn(len(x), 4))
        real_or_fake = torch.cat([self.discriminator(x), self.discriminator(fake.detach())])
        loss = F.softplus(real_or_fake * torch.cat([-torch.ones(len(x), 1), torch.ones(len(x), 1)])).mean()
        of_discriminator.zero_grad()
        self.manual_backward(loss)
        if batch_idx != self.leave_out:
            of_discriminator.step()
        loss = F.softplus(-self.discriminator(fake)).mean()
        of_generator.zero_grad()
        self.manual_backward(loss)
        of_generator.step()
        self.log("generator_loss", loss, on_step=True, on_epoch=True)

    def configure_optimizers(self):
        of_generator = OPTIMIZERS["AdamW-foreach"](self.generator.parameters())
        return [of_generator, OPTIMIZERS["SGD-nesterov"](self.discriminator.parameters())]


def test_of_two_optimizers_only_the_one_with_the_bad_step_is_held_back():
    batches = healthy_batches()
    plain = fit(lambda: Adversaries(leave_out=AT_FAULT), batches)
    guarded = fit(Adversaries, spoiled(batches, [AT_FAULT]), guard=strict_guard())

    assert differences(plain.state, guarded.state) == []
    summary = guarded.guard.summary
    assert (summary["steps"], summary["skipped_steps"], summary["rollbacks"]) == (2 * len(batches), 1, 0)
    assert [event["optimizer"] for event in guarded.guard.events if event["event"] == "incident"] == [1]


class NormalisedAdversaries(Adversaries):
    """The discriminator's batch normalisation sees the bad batch although only one step is dropped."""

    def __init__(self):
        super().__init__()
        self.discriminator = nn.Sequential(nn.Linear(FEATURES, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 1))


def test_buffers_that_a_half_dropped_batch_broke_are_put_back():
    guarded = fit(NormalisedAdversaries, spoiled(healthy_batches(), [AT_FAULT]), guard=strict_guard())
    unguarded = fit(NormalisedAdversaries, spoiled(healthy_batches(), [AT_FAULT]))
    assert is_finite(guarded)
    assert not is_finite(unguarded)
    assert guarded.guard.summary["skipped_steps"] == 1


class ByHand(TinyModule):
    """One optimizer that accumulates over batches, or steps several times on each.

    Args:
        accumulate: Batches per step.
        repeats: Steps per batch.
        scheduler: Name of a scheduler that is stepped after every optimizer step.
        nan_in: Batch and repeat whose loss is multiplied by NaN.
        leave_out: Batch and repeat whose step is not taken: the reference of a dropped step.
    """

    def __init__(self, accumulate=1, repeats=1, scheduler=None, nan_in=None, leave_out=None):
        super().__init__(OPTIMIZERS["SGD-nesterov"], SCHEDULERS.get(scheduler))
        self.automatic_optimization = False
        self.accumulate, self.repeats = accumulate, repeats
        self.nan_in, self.leave_out = nan_in, leave_out

    def training_step(self, batch, batch_idx):
        optimizer = self.optimizers()
        for repeat in range(self.repeats):
            loss = self.loss(*batch) * (torch.nan if self.nan_in == (batch_idx, repeat) else 1.0)
            self.manual_backward(loss / self.accumulate)
            if (batch_idx + 1) % self.accumulate:
                continue
            if self.leave_out != (batch_idx, repeat):
                optimizer.step()
                if self.lr_schedulers() is not None:
                    self.lr_schedulers().step()
            optimizer.zero_grad()
        self.log("loss", loss.detach(), on_step=True, on_epoch=True)

    def configure_optimizers(self):
        optimizer = self._make_optimizer(self.parameters())
        return [optimizer], [] if self._make_scheduler is None else [self._make_scheduler(optimizer)]


@pytest.mark.parametrize("fault", ["nan", "backward-nan", "spike"])
@pytest.mark.parametrize("at", [0, 6, 7, 11], ids=str)
def test_accumulation_by_hand_loses_the_whole_window(at, fault):
    if fault == "spike" and at == 0:
        fault = "nan"  # a finite value can only be a spike against a history
    batches, window = healthy_batches(), {at - at % 2, at - at % 2 + 1}
    plain = fit(lambda: ByHand(accumulate=2), without(batches, window))
    guarded = fit(lambda: ByHand(accumulate=2), spoiled(batches, [at], fault), guard=strict_guard())
    assert differences(plain.state, guarded.state) == []
    assert (guarded.guard.summary["steps"], guarded.guard.summary["skipped_steps"]) == (7, 1)


@pytest.mark.parametrize("repeat", [0, 1, 2])
def test_of_several_steps_on_one_batch_only_the_bad_one_is_dropped(repeat):
    batches, here = healthy_batches(), (AT_FAULT, repeat)
    plain = fit(lambda: ByHand(repeats=3, scheduler="Cosine", leave_out=here), batches)
    guarded = fit(lambda: ByHand(repeats=3, scheduler="Cosine", nan_in=here), batches, guard=strict_guard())
    parts = ("parameters", "buffers", "optimizers", "random", "schedulers")
    assert differences({p: plain.state[p] for p in parts}, {p: guarded.state[p] for p in parts}) == []
    assert (guarded.guard.summary["steps"], guarded.guard.summary["skipped_steps"]) == (42, 1)
    assert torch.isfinite(guarded.state["metrics"]["loss_epoch"])


def test_a_bad_batch_is_forgotten_with_all_its_steps():
    batches = healthy_batches()
    plain = fit(lambda: ByHand(repeats=2), without(batches, [AT_FAULT]))
    guarded = fit(lambda: ByHand(repeats=2), spoiled(batches, [AT_FAULT]), guard=strict_guard())
    assert differences(plain.state, guarded.state) == []
    assert (guarded.guard.summary["steps"], guarded.guard.summary["skipped_steps"]) == (28, 2)


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_a_scheduler_stepped_by_hand_does_not_advance_with_a_dropped_step(scheduler):
    batches = healthy_batches()
    plain = fit(lambda: ByHand(scheduler=scheduler), without(batches, [0, AT_FAULT]))
    guarded = fit(lambda: ByHand(scheduler=scheduler), spoiled(batches, [0, AT_FAULT]), guard=strict_guard())
    assert differences(plain.state, guarded.state) == []


class ByHandEachEpoch(ByHand):
    """Steps its scheduler at the last batch of each epoch, as Lightning's manual shows it."""

    def training_step(self, batch, batch_idx):
        schedulers, self.lr_schedulers = self.lr_schedulers(), lambda: None
        super().training_step(batch, batch_idx)
        del self.lr_schedulers
        if self.trainer.is_last_batch:
            schedulers.step()


def test_an_epoch_wise_scheduler_stepped_by_hand_advances_even_if_the_last_batch_is_dropped():
    batches = healthy_batches(6)
    plain = fit(lambda: ByHandEachEpoch(scheduler="StepLR"), batches[:-1], max_epochs=4)
    guarded = fit(
        lambda: ByHandEachEpoch(scheduler="StepLR"), spoiled(batches, [5]), guard=strict_guard(), max_epochs=4
    )
    assert differences(plain.state, guarded.state) == []


class Particular(ByHand):
    """Asks what it has been handed, as steps do that treat kinds of optimizers and schedulers differently."""

    def training_step(self, batch, batch_idx):
        kinds = (LightningOptimizer, torch.optim.SGD), (torch.optim.lr_scheduler.StepLR,)
        for handed, expected in zip((self.optimizers(), self.lr_schedulers()), kinds, strict=True):
            if not all(isinstance(handed, kind) for kind in expected):
                raise TypeError(f"{type(handed).__name__} is none of {expected}")
        super().training_step(batch, batch_idx)


def test_stand_ins_of_the_laboratory_are_of_the_kinds_that_a_step_expects():
    guard = strict_guard(diagnose="on_incident")
    fit(lambda: Particular(scheduler="StepLR"), spoiled(healthy_batches(), [AT_FAULT], "nan"), guard=guard)
    (incident,) = guard.incidents
    assert incident.diagnosis.cause.code == "DATA501"
    assert incident.diagnosis.cause.confidence is Confidence.CONFIRMED
