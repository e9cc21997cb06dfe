"""A run without incidents is bitwise the run without the guard."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from pytorch_lightning import LightningModule
from torch import nn
from torch.nn import functional as F

from tests.lightning_adapter.runs import (
    OPTIMIZERS,
    SCHEDULERS,
    TinyModule,
    differences,
    fit,
    healthy_batches,
    loader,
    strict_guard,
)


class SometimesNothing(TinyModule):
    """Returns no loss for every third batch."""

    def training_step(self, batch, batch_idx):
        return None if batch_idx % 3 == 1 else super().training_step(batch, batch_idx)


class Validated(TinyModule):
    """Validation draws random numbers as well."""

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", F.mse_loss(self.net(batch[0]), batch[1]) + 0.01 * torch.rand(()))


class SparseEmbedding(LightningModule):
    """An embedding with sparse gradients, some of them with repeated rows."""

    def __init__(self, optimizer: Callable[..., torch.optim.Optimizer]):
        super().__init__()
        self.embedding = nn.EmbeddingBag(10, 4, mode="sum", sparse=True)
        self._make_optimizer = optimizer

    def training_step(self, batch, batch_idx):
        rows = (batch[0].abs() * 5).long() % 10
        return F.mse_loss(self.embedding(rows).sum(1, keepdim=True), batch[1])

    def configure_optimizers(self):
        return self._make_optimizer(self.parameters())


class TwoOptimizers(TinyModule):
    """Manual optimisation: one optimizer steps with every batch, the other with every second one."""

    def __init__(self):
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch, batch_idx):
        net, direction = self.optimizers()
        for optimizer, turn in ((net, 1), (direction, 2)):
            loss = self.loss(*batch)
            optimizer.zero_grad()
            self.manual_backward(loss)
            if (batch_idx + 1) % turn == 0:
                optimizer.step()
            self.log(f"loss{turn}", loss, on_step=True, on_epoch=True)
        self.lr_schedulers().step()

    def configure_optimizers(self):
        net = OPTIMIZERS["SGD-nesterov"](self.net.parameters())
        return [net, OPTIMIZERS["Adam-amsgrad"](self.direction.parameters())], [SCHEDULERS["Cosine"](net)]


class Spectral(TinyModule):
    """Buffers that a forward pass writes in other ways than batch normalisation."""

    def __init__(self):
        super().__init__()
        self.net[0] = nn.utils.parametrizations.spectral_norm(self.net[0])
        self.net[1] = nn.BatchNorm1d(16, momentum=None)


def tiny(optimizer: str = "AdamW-foreach", scheduler: str | None = None) -> Callable[[], TinyModule]:
    return lambda: TinyModule(OPTIMIZERS[optimizer], SCHEDULERS.get(scheduler))


SETUPS: dict[str, tuple[Callable[[], LightningModule], dict[str, Any]]] = {
    "plain": (tiny(), {}),
    "epochs-and-scheduler": (tiny(scheduler="OneCycle"), {"max_epochs": 2}),
    "accumulation-with-short-last-window": (tiny("SGD-nesterov", "StepLR"), {"accumulate_grad_batches": 4}),
    "clip-norm": (tiny(), {"gradient_clip_val": 0.1}),
    "clip-value": (tiny("RMSprop"), {"gradient_clip_val": 0.01, "gradient_clip_algorithm": "value"}),
    "bf16-mixed": (tiny(), {"precision": "bf16-mixed"}),
    "bf16-true": (tiny(), {"precision": "bf16-true"}),
    "64-true": (tiny("Adam-amsgrad"), {"precision": "64-true"}),
    "fp16-scaler": (tiny(scheduler="Cosine"), {"scale": 64.0}),
    "fp16-scaler-clip": (tiny("SGD-nesterov"), {"scale": 64.0, "gradient_clip_val": 0.1}),
    "fp16-scaler-fused": (tiny("AdamW-fused"), {"scale": 64.0}),
    "fused": (tiny("AdamW-fused", "LambdaLR"), {}),
    "tensor-learning-rate": (tiny("AdamW-tensor-lr", "Cosine"), {}),
    "lbfgs": (tiny("LBFGS"), {}),
    "two-optimizers-by-hand": (TwoOptimizers, {}),
    "sparse-sgd": (lambda: SparseEmbedding(lambda p: torch.optim.SGD(p, lr=0.001)), {}),
    "sparse-adam": (lambda: SparseEmbedding(lambda p: torch.optim.SparseAdam(list(p), lr=0.1)), {}),
    "spectral-norm": (Spectral, {}),
    "validation-in-between": (
        lambda: Validated(scheduler=SCHEDULERS["WarmRestarts"]),
        {"validation": healthy_batches(2), "val_check_interval": 4, "max_epochs": 2},
    ),
    "no-loss-sometimes": (SometimesNothing, {}),
    "no-loss-sometimes-accumulating": (SometimesNothing, {"accumulate_grad_batches": 2}),
    "no-loss-sometimes-fp16-scaler": (SometimesNothing, {"scale": 64.0}),
}


@pytest.mark.parametrize("name", SETUPS)
def test_a_healthy_run_is_bitwise_the_unguarded_one(name):
    module, options = SETUPS[name]
    dtype = {"bf16-true": torch.bfloat16, "64-true": torch.float64}.get(options.get("precision"), torch.float32)
    batches = healthy_batches(dtype=dtype)

    plain = fit(module, batches, **options)
    guarded = fit(module, batches, guard=strict_guard(snapshot_every_n_steps=3, probation_steps=2), **options)

    assert differences(plain.state, guarded.state) == []
    assert plain.trainer.global_step == guarded.trainer.global_step
    assert guarded.guard.summary["incidents"] == 0
    assert guarded.guard.summary["steps"] > 0


def test_a_healthy_run_with_shuffling_and_augmentation_is_bitwise_the_unguarded_one():
    dataset = loader(healthy_batches(), augment=True).dataset

    def shuffled():
        return torch.utils.data.DataLoader(dataset, batch_size=None, shuffle=True)

    plain = fit(tiny(), shuffled(), max_epochs=3)
    guarded = fit(tiny(), shuffled(), max_epochs=3, guard=strict_guard())

    assert differences(plain.state, guarded.state) == []


def test_the_comparison_sees_a_single_flipped_bit():
    run = fit(tiny(), healthy_batches(2))
    other = fit(tiny(), healthy_batches(2))
    assert differences(run.state, other.state) == []

    bias = other.state["parameters"]["net.4.bias"]
    bias.copy_(torch.nextafter(bias, torch.full_like(bias, torch.inf)))
    assert differences(run.state, other.state) == ["/parameters/net.4.bias"]
