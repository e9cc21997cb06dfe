"""Regressions: unscaled, noisy, heavy-tailed, and with losses below zero."""

import math

import torch
from torch import Tensor, nn
from torch.distributions import Categorical, MixtureSameFamily, Normal
from torch.nn import functional as F

from benchmarks.healthy.registry import Parts, healthy_run
from benchmarks.healthy.supervised import Supervised, adam, mlp, sgd, shuffled


def wavy(samples: int, features: int = 6) -> tuple[Tensor, Tensor]:
    """Inputs and a smooth nonlinear function of them, of unit order."""
    inputs = torch.randn(samples, features)
    a, b, c, d = inputs[:, :4].split(1, dim=1)
    return inputs, torch.sin(2 * a) + 0.5 * b * c + 0.3 * d**2


@healthy_run("targets in the hundreds: the loss begins near 1e5 and the network trains all the same")
def unscaled_targets(seed: int) -> Parts:
    inputs, values = wavy(2000)
    module = Supervised(mlp(6, 64, 64, 1), F.mse_loss, adam(1e-2))
    return module, shuffled(inputs, 300 + 100 * values, batch_size=64, seed=seed), {"max_steps": 800}


@healthy_run("house prices in thousands, skewed: the loss begins near 1e5, and batches differ by far")
def unscaled_skewed_targets(seed: int) -> Parts:
    inputs, values = wavy(3000)
    prices = 300 * torch.exp(0.5 * values + 0.3 * torch.randn_like(values))
    module = Supervised(mlp(6, 64, 1), F.mse_loss, adam(2e-2))
    return module, shuffled(inputs, prices, batch_size=32, seed=seed), {"max_steps": 900}


@healthy_run("batch size 1: the loss of one sample can be any number of orders below that of the next")
def batch_size_1(seed: int) -> Parts:
    inputs, values = wavy(1200)
    module = Supervised(mlp(6, 32, 1), F.mse_loss, sgd(2e-2))
    noisy = values + 0.3 * torch.randn_like(values)
    return module, shuffled(inputs, noisy, batch_size=1, seed=seed), {"max_steps": 1500}


@healthy_run("classification with batch size 2 and overlapping classes")
def batch_size_2(seed: int) -> Parts:
    inputs, values = wavy(1500)
    labels = (values + 0.5 * torch.randn_like(values) > 0.3).float()
    module = Supervised(mlp(6, 32, 1), F.binary_cross_entropy_with_logits, adam(1e-3))
    return module, shuffled(inputs, labels, batch_size=2, seed=seed), {"max_steps": 1500}


@healthy_run("Student-t noise with 2 degrees of freedom under squared loss: infinite variance of the loss")
def heavy_tailed_noise(seed: int) -> Parts:
    inputs, values = wavy(4000)
    noise = torch.distributions.StudentT(2.0).sample(values.shape)
    module = Supervised(mlp(6, 32, 1), F.mse_loss, adam(1e-3))
    return module, shuffled(inputs, values + 0.5 * noise, batch_size=32, seed=seed), {"max_steps": 1000}


@healthy_run("the same kind of noise, 3 degrees of freedom, under the Huber loss with batches of 8")
def huber_heavy_tailed(seed: int) -> Parts:
    inputs, values = wavy(4000)
    noise = torch.distributions.StudentT(3.0).sample(values.shape)
    module = Supervised(mlp(6, 32, 1), F.huber_loss, adam(1e-3))
    return module, shuffled(inputs, values + noise, batch_size=8, seed=seed), {"max_steps": 1000}


def gaussian_nll(prediction: Tensor, target: Tensor) -> Tensor:
    """Negative log-likelihood of a normal law whose mean and log-variance the network gives."""
    mean, log_variance = prediction.chunk(2, dim=1)
    return 0.5 * (log_variance + (target - mean) ** 2 / log_variance.exp() + math.log(2 * math.pi)).mean()


@healthy_run("Gaussian likelihood with little noise: the loss passes through zero and ends well below it")
def gaussian_likelihood(seed: int) -> Parts:
    inputs, values = wavy(3000)
    noise = 0.02 * (1 + inputs[:, 4:5].abs())
    module = Supervised(mlp(6, 64, 64, 2), gaussian_nll, adam(2e-3))
    targets = values + noise * torch.randn_like(values)
    return module, shuffled(inputs, targets, batch_size=64, seed=seed), {"max_steps": 1200}


def mixture_nll(prediction: Tensor, target: Tensor) -> Tensor:
    """Negative log-likelihood of a mixture of five normal laws."""
    logits, means, log_scales = prediction.chunk(3, dim=1)
    scales = log_scales.clamp(-5, 3).exp()
    mixture = MixtureSameFamily(Categorical(logits=logits), Normal(means, scales))
    return -mixture.log_prob(target.squeeze(1)).mean()


@healthy_run("mixture density network on a function of several branches")
def mixture_density(seed: int) -> Parts:
    targets = torch.rand(2000, 1) * 2 - 1
    inputs = targets + 0.3 * torch.sin(2 * math.pi * targets) + 0.02 * torch.randn(2000, 1)
    module = Supervised(mlp(1, 64, 15, activation=nn.Tanh), mixture_nll, adam(3e-3))
    return module, shuffled(inputs, targets, batch_size=64, seed=seed), {"max_steps": 700}
