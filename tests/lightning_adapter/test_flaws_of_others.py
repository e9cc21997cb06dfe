"""Flaws seen in other detectors (Lightning's SpikeDetection above all), each held against the guard."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning.utilities import grad_norm
from torch import Tensor, nn

from nan_callbacks.errors import TrainingStoppedError
from nan_callbacks.lightning import NaNGuard
from tests.lightning_adapter.set_ups import (
    Batches,
    Regression,
    equal,
    finite,
    make_batches,
    make_trainer,
    quiet_guard,
    weights,
)

COUNT = 40


def incidents(guard: NaNGuard) -> list[tuple[int, str]]:
    return [(event["step"], event["code"]) for event in guard.events if event["event"] == "incident"]


def incident_steps(guard: NaNGuard) -> list[int]:
    """A spike may show in the loss and in the gradients of one step."""
    return sorted({step for step, _ in incidents(guard)})


def fit(module: Regression, batches: Batches, *, guard_settings: Any = (), **settings: Any) -> NaNGuard:
    guard = quiet_guard(**dict(guard_settings))
    make_trainer(guard, **settings).fit(module, batches)
    return guard


class SpikeAt(Regression):
    """Multiplies the loss at some steps."""

    def __init__(self, *steps: int, factor: float = 1e6) -> None:
        super().__init__()
        self.steps = steps
        self.factor = factor
        self.raw: list[float] = []

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = super().training_step(batch, batch_idx)
        self.raw.append(float(loss.detach()))
        return loss * self.factor if self.trainer.global_step in self.steps else loss


def test_spike_detection_raises_after_the_bad_update():
    module = Regression()
    guard = quiet_guard(on_non_finite="stop", on_give_up="raise")
    with pytest.raises(TrainingStoppedError):
        make_trainer(guard).fit(module, make_batches(COUNT, spoiled=[5]))

    assert finite(weights(module))


def test_spike_detection_crashes_every_resume(tmp_path: Path):
    trainer = make_trainer(quiet_guard())
    trainer.fit(Regression(), make_batches(10))
    trainer.save_checkpoint(tmp_path / "first.ckpt")
    guard = quiet_guard()
    make_trainer(guard, max_epochs=2).fit(Regression(), make_batches(10), ckpt_path=tmp_path / "first.ckpt")

    assert guard.summary["steps"] == 20


@pytest.mark.filterwarnings("ignore:`training_step` returned `None`")
def test_spike_detection_fails_with_key_error_on_a_step_that_returns_none():
    class SkipsSome(Regression):
        def training_step(self, batch: Any, batch_idx: int) -> Tensor | None:
            return None if batch_idx in (0, 3) else super().training_step(batch, batch_idx)

    kept = Batches([batch for index, batch in enumerate(make_batches(8)) if index not in (0, 3, 5)])
    guarded, clean = SkipsSome(), Regression()
    guard = fit(guarded, make_batches(8, spoiled=[5]))
    make_trainer().fit(clean, kept)

    assert guard.summary["skipped_steps"] == 1
    assert equal(weights(guarded), weights(clean))


def test_spike_detection_fails_with_key_error_on_manual_optimisation():
    class Manual(Regression):
        def __init__(self) -> None:
            super().__init__()
            self.automatic_optimization = False

        def training_step(self, batch: Any, batch_idx: int) -> None:
            optimizer = self.optimizers()
            optimizer.zero_grad()
            self.manual_backward(self.loss(batch))
            optimizer.step()

    module = Manual()
    guard = fit(module, make_batches(8, spoiled=[5]))

    assert guard.summary["skipped_steps"] == 1
    assert finite(weights(module))


def test_spike_detection_lets_nan_in_batch_0_into_its_mean():
    """And ZClip is switched off for good by one NaN gradient."""
    module = SpikeAt(30)
    guard = fit(module, make_batches(COUNT, spoiled=[0]))

    assert incident_steps(guard) == [0, 30]
    assert finite(weights(module))


def test_one_nan_makes_a_skip_step_optimizer_skip_its_whole_window():
    """As seen in OLMo-core's: the steps after a NaN are compared with a NaN for 128 steps."""
    guard = fit(Regression(), make_batches(COUNT, spoiled=[20]))

    assert guard.summary["skipped_steps"] == 1
    assert guard.summary["steps"] == COUNT


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_spike_detection_passes_over_non_finite_losses_unless_told_otherwise(value: float):
    guard = fit(SpikeAt(7, factor=value), make_batches(10))

    assert incidents(guard) == [(7, "NAN101")]


def test_spike_detection_sees_the_loss_divided_by_the_accumulation_factor():
    module = SpikeAt(9)
    guard = fit(module, make_batches(COUNT), accumulate_grad_batches=4, guard_settings={"warmup_steps": 5})

    assert incident_steps(guard) == [9]
    incident = next(event for event in guard.events if event["event"] == "incident")
    assert incident["loss"] == pytest.approx(1e6 * sum(module.raw[36:40]) / 4, rel=1e-5)


def test_spike_detection_warms_up_anew_in_every_epoch():
    module = SpikeAt(32)
    guard = fit(module, make_batches(10), max_epochs=4)

    assert incident_steps(guard) == [32]
    assert guard.events[0]["batch_index"] == 2


def test_a_ratio_to_the_mean_means_nothing_for_losses_below_zero():
    class Negative(SpikeAt):
        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            loss = super().training_step(batch, batch_idx)
            return loss if self.trainer.global_step in self.steps else loss - 100.0

    assert incident_steps(fit(Negative(), make_batches(COUNT))) == []
    assert incident_steps(fit(Negative(30), make_batches(COUNT))) == [30]


def test_spike_detection_writes_a_file_that_nobody_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    fit(SpikeAt(5), make_batches(10, spoiled=[2]))

    assert os.listdir(tmp_path) == []


def test_clipping_makes_a_whole_gradient_nan_of_one_infinite_element():
    class OneInfiniteElement(Regression):
        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            loss = super().training_step(batch, batch_idx)
            if batch_idx == 3:
                self.net.weight.register_hook(self.spoil)
            return loss

        def spoil(self, gradient: Tensor) -> Tensor:
            spoiled = gradient.clone()
            if self.trainer.global_step == 3:
                spoiled[0, 0] = float("inf")
            return spoiled

    module = OneInfiniteElement()
    guard = fit(module, make_batches(8), gradient_clip_val=1.0)

    assert incidents(guard) == [(3, "NAN101")]
    assert guard.events[0]["where"] == "net.weight"
    assert finite(weights(module))


def test_skipping_before_other_hooks_hides_the_gradients_from_them():
    class LooksAtGradients(Regression):
        def __init__(self) -> None:
            super().__init__()
            self.norms: list[float] = []

        def on_before_optimizer_step(self, optimizer: Any) -> None:
            self.norms.append(float(grad_norm(self.net, norm_type=2)["grad_2.0_norm_total"]))

    module = LooksAtGradients()
    fit(module, make_batches(6, spoiled=[2]))

    assert [torch.isnan(torch.tensor(norm)).item() for norm in module.norms] == [
        False,
        False,
        True,
        False,
        False,
        False,
    ]


def test_a_skipped_update_leaves_batch_statistics_broken():
    class Normalised(Regression):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 1))

    module = Normalised()
    fit(module, make_batches(6, spoiled=[2]))

    assert finite(module.buffers())
