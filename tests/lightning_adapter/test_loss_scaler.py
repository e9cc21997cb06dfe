"""A dynamic loss scaler does its own business; the guard sees to the rest."""

import pytest
import torch

from tests.lightning_adapter.runs import (
    OPTIMIZERS,
    SCHEDULERS,
    TinyModule,
    differences,
    fit,
    healthy_batches,
    is_finite,
    spoiled,
    strict_guard,
)


@pytest.mark.parametrize("options", [{}, {"accumulate_grad_batches": 2}, {"gradient_clip_val": 0.1}], ids=str)
@pytest.mark.parametrize("optimizer", ["AdamW-foreach", "SGD-nesterov", "AdamW-fused"])
def test_an_ordinary_overflow_is_no_incident_and_changes_nothing(optimizer, options):
    if optimizer == "AdamW-fused":
        options = {key: value for key, value in options.items() if key != "gradient_clip_val"}  # Lightning forbids both

    def module():
        return TinyModule(OPTIMIZERS[optimizer], SCHEDULERS["Cosine"])

    plain = fit(module, healthy_batches(), scale=2.0**22, **options)
    guarded = fit(module, healthy_batches(), scale=2.0**22, guard=strict_guard(), **options)

    assert guarded.state["scaler"]["scale"] < 2.0**22  # it did overflow
    assert differences(plain.state, guarded.state) == []
    assert guarded.guard.summary["incidents"] == 0
    assert guarded.guard.summary["skipped_steps"] == 0


@pytest.mark.parametrize("optimizer", ["AdamW-foreach", "AdamW-fused"])
def test_a_bad_batch_costs_no_loss_scale(optimizer):
    def module():
        return TinyModule(OPTIMIZERS[optimizer])

    options = {"scale": 64.0, "max_epochs": 1}
    bad = spoiled(healthy_batches(4), [1, 3])
    guarded = fit(module, bad, guard=strict_guard(), **options)
    unguarded = fit(module, bad, **options)

    assert guarded.state["scaler"]["scale"] == 64.0
    assert guarded.state["scaler"]["_growth_tracker"] == 2  # two good steps
    assert unguarded.state["scaler"]["scale"] == 16.0


class AlwaysOverflows(TinyModule):
    """Finite losses whose gradients are infinite at every scale."""

    def training_step(self, batch, batch_idx):
        return self.loss(*batch) + (self.direction.weight.sum() * 0.0).sqrt()


@pytest.mark.parametrize("optimizer", ["AdamW-foreach", "AdamW-fused"])
@pytest.mark.parametrize("scale", [64.0, 0.5])
def test_an_overflow_that_no_scale_cures_stops_the_run_and_keeps_the_scale(optimizer, scale):
    def module():
        return AlwaysOverflows(OPTIMIZERS[optimizer])

    guarded = fit(module, healthy_batches(100), scale=scale, guard=strict_guard())
    unguarded = fit(module, healthy_batches(100), scale=scale)

    summary = guarded.guard.summary
    assert summary["stopped"]
    assert summary["steps"] < 100
    assert "NAN101" in summary["codes"]
    assert ("OPT603" in summary["codes"]) == (scale < 1.0)
    assert guarded.state["scaler"]["scale"] >= min(scale, 1.0)
    assert unguarded.state["scaler"]["scale"] < 1e-20
    assert is_finite(guarded)


def test_a_nan_that_only_the_backward_pass_makes_is_left_to_the_scaler():
    """Infinities and NaN both come from overflow in float16, so a finite loss speaks for the scaler."""
    bad = spoiled(healthy_batches(), [6], "backward-nan")
    plain = fit(TinyModule, bad, scale=64.0)
    guarded = fit(TinyModule, bad, scale=64.0, guard=strict_guard())
    assert differences(plain.state, guarded.state) == []
    assert guarded.guard.summary["skipped_steps"] == 0
    assert all(bool(torch.isfinite(value).all()) for value in guarded.state["parameters"].values())
