"""Learning rates that move a great deal or stay high, and an optimizer of many closures a step."""

import torch
from torch import nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import CosineAnnealingWarmRestarts, CyclicLR, OneCycleLR

from benchmarks.healthy.digits import digits, digits_cnn
from benchmarks.healthy.registry import Parts, healthy_run
from benchmarks.healthy.regression import wavy
from benchmarks.healthy.supervised import Supervised, adam, mlp, sgd, shuffled


@healthy_run("CosineAnnealingWarmRestarts: at every restart the rate jumps from nothing to its maximum")
def warm_restarts(seed: int) -> Parts:
    inputs, labels = digits()
    module = Supervised(
        digits_cnn(normalise=False),
        F.cross_entropy,
        sgd(0.1, momentum=0.9),
        lambda o: CosineAnnealingWarmRestarts(o, T_0=100, T_mult=2),
    )
    return module, shuffled(inputs, labels, batch_size=32, seed=seed), {"max_steps": 800}


@healthy_run("OneCycleLR up to a high rate and down to almost none")
def one_cycle(seed: int) -> Parts:
    inputs, labels = digits()
    module = Supervised(
        mlp(64, 64, 64, 10), F.cross_entropy, sgd(0.1), lambda o: OneCycleLR(o, max_lr=0.3, total_steps=601)
    )
    return module, shuffled(inputs, labels, batch_size=64, seed=seed), {"max_steps": 600}


@healthy_run("CyclicLR: a triangle between 0.005 and 0.3 every 120 steps")
def cyclic(seed: int) -> Parts:
    inputs, labels = digits()
    module = Supervised(
        mlp(64, 48, 10),
        F.cross_entropy,
        sgd(0.005, momentum=0.9),
        lambda o: CyclicLR(o, base_lr=0.005, max_lr=0.3, step_size_up=60),
    )
    return module, shuffled(inputs, labels, batch_size=32, seed=seed), {"max_steps": 800}


@healthy_run("RMSprop at a high rate on a regression: a noisy, oscillating loss that still falls")
def rmsprop_noisy(seed: int) -> Parts:
    inputs, values = wavy(2000)
    module = Supervised(
        mlp(6, 64, 64, 1), F.mse_loss, lambda m: torch.optim.RMSprop(m.parameters(), lr=5e-3, momentum=0.5)
    )
    return module, shuffled(inputs, values, batch_size=16, seed=seed), {"max_steps": 900}


@healthy_run("SGD with momentum close to the edge of stability: the loss swings fourfold about its descent")
def edge_of_stability(seed: int) -> Parts:
    inputs, values = wavy(256)
    network = mlp(6, 64, 64, 1, activation=nn.Tanh)
    module = Supervised(network, F.mse_loss, sgd(0.05, momentum=0.9))
    return module, shuffled(inputs, values, batch_size=64, seed=seed), {"max_steps": 1000}


@healthy_run("Adam on full batches: ripples, small in the loss and tenfold in the gradient")
def adam_ripples(seed: int) -> Parts:
    inputs, values = wavy(256)
    module = Supervised(mlp(6, 64, 64, 1, activation=nn.Tanh), F.mse_loss, adam(1e-3))
    return module, shuffled(inputs, values, batch_size=256, seed=seed), {"max_steps": 1500}


@healthy_run("LBFGS with line search: several closures a step, which probe worse points as well")
def lbfgs(seed: int) -> Parts:
    inputs, values = wavy(400, features=4)
    module = Supervised(
        mlp(4, 24, 1, activation=nn.Tanh),
        F.mse_loss,
        lambda m: torch.optim.LBFGS(m.parameters(), max_iter=4, line_search_fn="strong_wolfe"),
    )
    return module, shuffled(inputs, values, batch_size=400, seed=seed), {"max_steps": 300}
