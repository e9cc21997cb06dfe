"""Classifiers of handwritten digits: the everyday runs, at different precisions and step sizes."""

from functools import cache

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import StepLR

from benchmarks.healthy.registry import Parts, healthy_run
from benchmarks.healthy.supervised import Supervised, adam, adamw, mlp, sgd, shuffled


@cache
def digits() -> tuple[Tensor, Tensor]:
    """The 1797 images of 64 pixels of scikit-learn's digits, standardised as a whole, and their labels."""
    data = load_digits()
    pixels = torch.tensor(data.data, dtype=torch.float32)
    return (pixels - pixels.mean()) / pixels.std(), torch.tensor(data.target)


def digits_cnn(normalise: bool = True) -> nn.Sequential:
    """A small convolutional network for the 8 x 8 images."""
    return nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)),
        nn.Conv2d(1, 16, 3, padding=1),
        nn.BatchNorm2d(16) if normalise else nn.Identity(),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.BatchNorm2d(32) if normalise else nn.Identity(),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32 * 16, 10),
    )


@healthy_run("the plainest run there is")
def digits_mlp(seed: int) -> Parts:
    inputs, labels = digits()
    module = Supervised(mlp(64, 64, 10), F.cross_entropy, adam(1e-3))
    return module, shuffled(inputs, labels, batch_size=64, seed=seed), {"max_steps": 600}


@healthy_run("BatchNorm, SGD with Nesterov momentum and a learning rate that drops in steps")
def digits_cnn_batchnorm(seed: int) -> Parts:
    inputs, labels = digits()
    optimizer = sgd(0.05, momentum=0.9, nesterov=True, weight_decay=5e-4)
    module = Supervised(digits_cnn(), F.cross_entropy, optimizer, lambda o: StepLR(o, 200, 0.1))
    return module, shuffled(inputs, labels, batch_size=32, seed=seed), {"max_steps": 500}


@healthy_run("the last batch of an epoch holds 5 samples, the others 128: a periodic outlier")
def digits_small_last_batch(seed: int) -> Parts:
    inputs, labels = digits()
    module = Supervised(digits_cnn(normalise=False), F.cross_entropy, adam(2e-3))
    return module, shuffled(inputs, labels, batch_size=128, seed=seed), {"max_steps": 450}


@healthy_run("bfloat16 autocast: losses and norms of coarse resolution")
def digits_bf16(seed: int) -> Parts:
    inputs, labels = digits()
    module = Supervised(mlp(64, 128, 128, 10), F.cross_entropy, adamw(1e-3))
    loader = shuffled(inputs, labels, batch_size=64, seed=seed)
    return module, loader, {"max_steps": 500, "precision": "bf16-mixed"}


@healthy_run("four batches accumulated into one step")
def digits_accumulate4(seed: int) -> Parts:
    inputs, labels = digits()
    module = Supervised(mlp(64, 64, 10), F.cross_entropy, adam(2e-3))
    loader = shuffled(inputs, labels, batch_size=16, seed=seed, drop_last=True)
    return module, loader, {"max_steps": 400, "accumulate_grad_batches": 4}


@healthy_run("one learning rate per layer, a hundred times apart")
def digits_layerwise_lr(seed: int) -> Parts:
    inputs, labels = digits()

    def optimizer(module: nn.Module) -> Optimizer:
        layers = [layer for layer in module.modules() if isinstance(layer, nn.Linear)]
        rates = (1e-3, 1e-2, 1e-1)
        groups = [{"params": layer.parameters(), "lr": lr} for layer, lr in zip(layers, rates, strict=True)]
        return SGD(groups, lr=1e-2, momentum=0.9)

    module = Supervised(mlp(64, 64, 64, 10), F.cross_entropy, optimizer)
    return module, shuffled(inputs, labels, batch_size=32, seed=seed), {"max_steps": 500}
