"""Steps that end in an error: the error is told with what led to it, and not with what did not."""

import math

import pytest
import torch
from pytorch_lightning import Callback
from torch.nn import functional as F
from torch.utils.data import DataLoader

from tests.lightning_adapter.runs import OPTIMIZERS, TinyModule, fit, healthy_batches, strict_guard

AT = 6


class Likelihood(TinyModule):
    """A loss that checks its operands and raises, where another would be NaN."""

    def training_step(self, batch, batch_idx):
        x, y = batch
        return -torch.distributions.Normal(self.direction(x)[:, 0], 1.0, validate_args=True).log_prob(y[:, 0]).mean()


def told(module, batches, error, **options):
    guard = strict_guard(**options)
    with pytest.raises(error):
        fit(lambda: module(OPTIMIZERS["SGD"]), batches, guard=guard)
    return guard.incidents


def with_nan(part):
    batches = [tuple(each.clone() for each in batch) for batch in healthy_batches()]
    batches[AT][part][2] = math.nan
    return batches


@pytest.mark.parametrize("part", [0, 1], ids=["inputs", "targets"])
def test_a_nan_that_makes_the_step_raise_is_named_as_the_cause(part):
    (incident,) = told(Likelihood, with_nan(part), ValueError)
    assert (incident.code, incident.step) == ("ENV703", AT)
    assert incident.diagnosis.cause.code == "DATA501"
    assert incident.diagnosis.cause.confidence == "confirmed"
    assert incident.diagnosis.guilty_rows == (2,)


class Stumbles(Callback):
    """An error of its own, at a batch that would be dropped."""

    def on_before_backward(self, trainer, pl_module, loss):
        if not torch.isfinite(loss):
            raise ValueError("mine")


def test_an_error_of_another_callback_at_a_bad_batch_is_not_the_steps():
    guard = strict_guard()
    with pytest.raises(ValueError, match="mine"):
        fit(lambda: TinyModule(OPTIMIZERS["SGD"]), with_nan(0), Stumbles(), guard=guard)
    assert guard.incidents == ()


class CutOff(TinyModule):
    """Its loss does not depend on its parameters from some batch on."""

    def training_step(self, batch, batch_idx):
        loss = F.mse_loss(self.direction(batch[0])[:, :1], batch[1][:, :1])
        return loss.detach() if batch_idx >= AT else loss


def test_a_loss_that_is_cut_off_is_named():
    (incident,) = told(CutOff, healthy_batches(), RuntimeError)
    assert (incident.code, incident.diagnosis.cause.code) == ("ENV703", "OPT608")
    assert "depends on none of them" in incident.describe()


class Frozen(CutOff):
    """Nothing of it is to be trained."""

    def on_fit_start(self):
        self.requires_grad_(False)


def test_a_model_that_is_frozen_as_a_whole_is_named():
    (incident,) = told(Frozen, healthy_batches(), RuntimeError)
    assert (incident.step, incident.diagnosis.cause.code) == (0, "OPT608")
    assert "frozen" in incident.diagnosis.cause.because[0]


class Overwrites(TinyModule):
    """Changes in place what the way back needs."""

    def training_step(self, batch, batch_idx):
        hidden = torch.sigmoid(self.direction(batch[0]))
        doubled = hidden * hidden
        hidden += 1
        return doubled.sum()


def test_a_tensor_that_was_overwritten_is_an_error_of_the_program():
    (incident,) = told(Overwrites, healthy_batches(), RuntimeError)
    assert incident.diagnosis.cause.code == "ENV703"
    assert "Make a new tensor" in incident.describe()
    assert incident.diagnosis.trials == ()


class Trajectories(TinyModule):
    """Points in time come first in two of three parts, as solvers of differential equations want them."""

    def training_step(self, batch, batch_idx):
        start, times, path = batch
        return F.mse_loss(self.direction(start)[None] * times[:, None, None], path)


def trajectories(spoil):
    generator = torch.Generator().manual_seed(0)
    times = torch.linspace(0, 1, 6)
    batches = []
    for index in range(14):
        start = torch.randn(16, 8, generator=generator)
        path = torch.randn(6, 16, 4, generator=generator)
        if index == AT:
            start[11] = spoil
        batches.append((start, times.clone(), path))
    return DataLoader(batches, batch_size=None)


@pytest.mark.parametrize(("spoil", "causes"), [(math.nan, {"DATA501"}), (1e30, {"DATA503", "DATA512"})])
def test_rows_that_a_part_does_not_have_are_never_asked_for(spoil, causes):
    guard = strict_guard()
    fit(lambda: Trajectories(OPTIMIZERS["SGD"]), trajectories(spoil), guard=guard)
    assert guard.incidents[0].step == AT
    assert guard.incidents[0].diagnosis.cause.code in causes
