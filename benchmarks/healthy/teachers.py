"""Students of a teacher: a loss that begins at zero, and an equation as the only teacher."""

import copy
from typing import Any

import torch
from pytorch_lightning import LightningModule
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from benchmarks.healthy.digits import digits
from benchmarks.healthy.registry import Parts, healthy_run
from benchmarks.healthy.supervised import mlp, shuffled


class NoisyStudent(LightningModule):
    """The student is a copy of its teacher, and must agree with it while its own input grows noisier."""

    def __init__(self, ramp_steps: int) -> None:
        super().__init__()
        self.student = mlp(64, 64, 10)
        self.teacher = copy.deepcopy(self.student).requires_grad_(False)
        self.ramp_steps = ramp_steps

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        (images,) = batch
        scale = min(1.0, self.global_step / self.ramp_steps)
        noisy = images + scale * torch.randn_like(images)
        target = 4 * self.teacher(images)
        loss = F.mse_loss(4 * self.student(noisy), target)
        self.log("train_loss", loss)
        return loss

    def configure_optimizers(self) -> Optimizer:
        return torch.optim.Adam(self.parameters(), lr=1e-3)


@healthy_run("distillation that begins at a loss of exactly zero and rises as noise is switched on")
def distillation_from_zero(seed: int) -> Parts:
    inputs, _ = digits()
    return NoisyStudent(ramp_steps=400), shuffled(inputs, batch_size=32, seed=seed), {"max_steps": 900}


class MeanTeacher(LightningModule):
    """Bootstrapped targets: the teacher is a moving average of the student (as in BYOL)."""

    def __init__(self) -> None:
        super().__init__()
        self.student, self.predictor = mlp(64, 96, 32), mlp(32, 64, 32)
        self.teacher = copy.deepcopy(self.student).requires_grad_(False)

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        (images,) = batch
        first, second = (images + 0.4 * torch.randn_like(images) for _ in range(2))
        with torch.no_grad():
            target = F.normalize(self.teacher(second), dim=1)
        guess = F.normalize(self.predictor(self.student(first)), dim=1)
        loss = 2 - 2 * (guess * target).sum(1).mean()
        self.log("train_loss", loss)
        return loss

    def on_train_batch_end(self, *_: Any) -> None:
        for average, weight in zip(self.teacher.parameters(), self.student.parameters(), strict=True):
            average.data.lerp_(weight.data, 0.01)

    def configure_optimizers(self) -> Optimizer:
        weights = [*self.student.parameters(), *self.predictor.parameters()]
        return torch.optim.SGD(weights, lr=0.1, momentum=0.9)


@healthy_run("BYOL-like self-distillation with a moving-average teacher")
def mean_teacher(seed: int) -> Parts:
    inputs, _ = digits()
    return MeanTeacher(), shuffled(inputs, batch_size=64, seed=seed), {"max_steps": 700}


class OscillatorEquation(LightningModule):
    """A physics-informed network for u'' + 9 u = 0, u(0) = 1, u'(0) = 0."""

    def __init__(self) -> None:
        super().__init__()
        self.network = mlp(1, 32, 32, 1, activation=nn.Tanh)

    def derivative(self, of: Tensor, by: Tensor) -> Tensor:
        return torch.autograd.grad(of.sum(), by, create_graph=True)[0]

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        time, start = batch[0].requires_grad_(), torch.zeros(1, 1, requires_grad=True)
        position, origin = self.network(time), self.network(start)
        acceleration = self.derivative(self.derivative(position, time), time)
        residual = ((acceleration + 9 * position) ** 2).mean()
        boundary = ((origin - 1) ** 2 + self.derivative(origin, start) ** 2).mean()
        self.log_dict({"residual": residual, "boundary": boundary})
        return residual + 50 * boundary

    def configure_optimizers(self) -> Optimizer:
        return torch.optim.Adam(self.parameters(), lr=5e-3)


@healthy_run("physics-informed network: second derivatives, stiff terms, a restless fall")
def physics_informed(seed: int) -> Parts:
    times = 2 * torch.rand(512, 1)
    return OscillatorEquation(), shuffled(times, batch_size=64, seed=seed), {"max_steps": 1200}
