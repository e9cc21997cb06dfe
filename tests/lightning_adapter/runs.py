"""Tiny runs to compare bit by bit: a model, its data, and everything that a fit leaves behind."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.plugins import MixedPrecision
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import lr_scheduler
from torch.utils.data import DataLoader, Dataset
from torchmetrics import MeanMetric

from nan_callbacks.lightning import NaNGuard

FEATURES, BATCH_SIZE, STEPS = 8, 16, 14

OPTIMIZERS: dict[str, Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]] = {
    "SGD": lambda p: torch.optim.SGD(p, lr=0.01),
    "SGD-nesterov": lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9, nesterov=True, weight_decay=0.1),
    "Adam-amsgrad": lambda p: torch.optim.Adam(p, lr=0.01, amsgrad=True),
    "AdamW-foreach": lambda p: torch.optim.AdamW(p, lr=0.01, foreach=True, weight_decay=0.1),
    "AdamW-fused": lambda p: torch.optim.AdamW(p, lr=0.01, fused=True, weight_decay=0.1),
    "AdamW-tensor-lr": lambda p: torch.optim.AdamW(p, lr=torch.tensor(0.01), foreach=False),
    "Adafactor": lambda p: torch.optim.Adafactor(p, lr=0.01),
    "Adagrad": lambda p: torch.optim.Adagrad(p, lr=0.01),
    "RMSprop": lambda p: torch.optim.RMSprop(p, lr=0.001, momentum=0.9, centered=True),
    "NAdam": lambda p: torch.optim.NAdam(p, lr=0.01),
    "RAdam": lambda p: torch.optim.RAdam(p, lr=0.01),
    "ASGD": lambda p: torch.optim.ASGD(p, lr=0.01),
    "Adadelta": lambda p: torch.optim.Adadelta(p),
    "Rprop": lambda p: torch.optim.Rprop(p, lr=0.001),
    "Adamax": lambda p: torch.optim.Adamax(p, lr=0.01),
    "LBFGS": lambda p: torch.optim.LBFGS(p, lr=0.1, max_iter=3),
}

SCHEDULERS: dict[str, Callable[[torch.optim.Optimizer], Any]] = {
    "StepLR": lambda o: lr_scheduler.StepLR(o, 2, 0.9),
    "LambdaLR": lambda o: lr_scheduler.LambdaLR(o, lambda step: 0.97**step),
    "OneCycle": lambda o: lr_scheduler.OneCycleLR(o, 0.02, total_steps=40),
    "Cosine": lambda o: lr_scheduler.CosineAnnealingLR(o, 10),
    "Sequential": lambda o: lr_scheduler.SequentialLR(
        o, [lr_scheduler.LinearLR(o, 0.1, total_iters=3), lr_scheduler.CosineAnnealingLR(o, 10)], [3]
    ),
    "WarmRestarts": lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 4),
}


class TinyModule(LightningModule):
    """Batch normalisation, dropout, all three random streams, and two ways of logging.

    Args:
        optimizer: Makes the optimizer.
        scheduler: Makes a scheduler that steps with every optimizer step; None for none.
    """

    def __init__(
        self,
        optimizer: Callable[..., torch.optim.Optimizer] = OPTIMIZERS["AdamW-foreach"],
        scheduler: Callable[[torch.optim.Optimizer], Any] | None = None,
    ) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(FEATURES, 16), nn.BatchNorm1d(16), nn.GELU(), nn.Dropout(0.3), nn.Linear(16, 1)
        )
        self.direction = nn.Linear(FEATURES, 4, bias=False)
        self.register_buffer("seen", torch.zeros(1), persistent=False)
        self.mean_error = MeanMetric()
        self._make_optimizer, self._make_scheduler = optimizer, scheduler

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        """The root has an infinite slope at a row of zeros: a finite loss whose gradient is NaN."""
        self.seen += x.detach().abs().mean().float()
        error = F.mse_loss(self.net(x).to(y.dtype), y)
        length = self.direction(x).square().sum(1).sqrt().mean()
        return (error + 0.1 * length) * (1 + 0.01 * np.random.rand() + 0.01 * random.random())  # noqa: NPY002

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        loss = self.loss(*batch)
        self.mean_error(loss.detach())
        self.log("loss", loss, on_step=True, on_epoch=True)
        self.log("mean_error", self.mean_error, on_step=False, on_epoch=True)
        return loss

    def configure_optimizers(self) -> Any:
        optimizer = self._make_optimizer(self.parameters())
        if self._make_scheduler is None:
            return optimizer
        scheduler = self._make_scheduler(optimizer)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


class DrawlessModule(TinyModule):
    """The same without random numbers."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.net[3] = nn.Identity()

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        """See :meth:`TinyModule.loss`."""
        error = F.mse_loss(self.net(x).to(y.dtype), y)
        return error + 0.1 * self.direction(x).square().sum(1).sqrt().mean()


Batch = tuple[Tensor, Tensor]


def healthy_batches(count: int = STEPS, dtype: torch.dtype = torch.float32) -> list[Batch]:
    """Batches of a learnable regression."""
    generator = torch.Generator().manual_seed(3)
    weight = torch.randn(FEATURES, 1, generator=generator)
    inputs = [torch.randn(BATCH_SIZE, FEATURES, generator=generator) for _ in range(count)]
    return [(x.to(dtype), (x @ weight + 0.5).to(dtype)) for x in inputs]


def _with_nan(batch: Batch) -> Batch:
    x = batch[0].clone()
    x[2, 1] = torch.nan
    return x, batch[1]


def _with_spike(batch: Batch) -> Batch:
    return batch[0] * 1e6, batch[1]


def _with_zero_row(batch: Batch) -> Batch:
    x = batch[0].clone()
    x[2] = 0.0
    return x, batch[1]


FAULTS: dict[str, Callable[[Batch], Batch]] = {"nan": _with_nan, "spike": _with_spike, "backward-nan": _with_zero_row}
"""Ways to spoil a batch: NaN in the input, finite but far too large, finite loss with a NaN gradient."""


def spoiled(batches: list[Batch], at: Iterable[int], fault: str = "nan") -> list[Batch]:
    """The batches, some of them spoiled."""
    at = set(at)
    return [FAULTS[fault](batch) if index in at else batch for index, batch in enumerate(batches)]


def without(batches: list[Batch], dropped: Iterable[int]) -> list[Batch]:
    """The batches as if some had never been drawn."""
    dropped = set(dropped)
    return [batch for index, batch in enumerate(batches) if index not in dropped]


class BatchDataset(Dataset):
    """Finished batches, augmented in the main process if asked to."""

    def __init__(self, batches: list[Batch], *, augment: bool = False) -> None:
        self._batches, self._augment = batches, augment

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, index: int) -> Batch:
        x, y = self._batches[index]
        if self._augment:
            x = x + 0.01 * torch.randn_like(x) + 0.01 * float(np.random.rand()) + 0.01 * random.random()  # noqa: NPY002
        return x, y


def loader(batches: list[Batch], *, augment: bool = False) -> DataLoader:
    """Batches in their order."""
    return DataLoader(BatchDataset(batches, augment=augment), batch_size=None)


def tiny_trainer(*callbacks: Callback, scale: float | None = None, **options: Any) -> Trainer:
    """A silent trainer on the CPU.

    Args:
        callbacks: Callbacks.
        scale: Initial loss scale of a real float16 gradient scaler on the CPU (``precision="16-mixed"`` would turn
            into bfloat16 there); None for none.
        options: Further arguments of the trainer.
    """
    if scale is not None:
        scaler = torch.amp.GradScaler("cpu", init_scale=scale, growth_interval=5)
        options["plugins"] = [MixedPrecision("16-mixed", "cpu", scaler)]
    options.setdefault("max_epochs", 1)
    return Trainer(
        accelerator="cpu",
        devices=options.pop("devices", 1),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        callbacks=list(callbacks),
        **options,
    )


def seed_all(seed: int = 0) -> None:
    """Start all three random streams."""
    torch.manual_seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    random.seed(seed)


@dataclass
class Run:
    """A finished fit."""

    module: LightningModule
    trainer: Trainer
    guard: NaNGuard | None
    state: dict[str, Any] = field(default_factory=dict)
    """Everything that it left behind; see :func:`state_of`."""


def strict_guard(**settings: Any) -> NaNGuard:
    """A guard that raises its own errors."""
    return NaNGuard(strict=True, verbose=False, **settings)


def fit(
    module: Callable[[], LightningModule],
    batches: list[Batch] | DataLoader,
    *callbacks: Callback,
    guard: NaNGuard | None = None,
    validation: list[Batch] | None = None,
    seed: int = 0,
    **options: Any,
) -> Run:
    """Train from one seed.

    Args:
        module: Makes the module, after seeding.
        batches: The data, or a loader of them.
        callbacks: Callbacks that run after the guard.
        guard: The guard, None for a run without.
        validation: Validation data.
        seed: Where the random streams start.
        options: Options of :func:`tiny_trainer`.
    """
    seed_all(seed)
    model = module()
    trainer = tiny_trainer(*([guard] if guard else []), *callbacks, **options)
    data = batches if isinstance(batches, DataLoader) else loader(batches)
    trainer.fit(model, data, None if validation is None else loader(validation))
    return Run(model, trainer, guard, state_of(model, trainer))


def state_of(module: LightningModule, trainer: Trainer) -> dict[str, Any]:
    """Parameters, buffers, optimizers, schedulers, loss scale, random streams and the user's metrics."""
    scaler = getattr(trainer.precision_plugin, "scaler", None)
    return {
        "parameters": {name: value.detach().clone() for name, value in module.named_parameters()},
        "buffers": {name: value.detach().clone() for name, value in module.named_buffers()},
        "optimizers": [optimizer.state_dict() for optimizer in trainer.optimizers],
        "schedulers": [config.scheduler.state_dict() for config in trainer.lr_scheduler_configs],
        "scaler": None if scaler is None else scaler.state_dict(),
        "random": random_state(),
        "metrics": {
            name: value for name, value in trainer.callback_metrics.items() if not name.startswith("nan_callbacks/")
        },
    }


def random_state() -> dict[str, Any]:
    """Where the three random streams are."""
    kind, keys, position, *rest = np.random.get_state()  # noqa: NPY002
    return {
        "torch": torch.get_rng_state(),
        "numpy": [kind, keys.tolist(), position, *rest],
        "python": random.getstate(),
    }


def differences(left: Any, right: Any, path: str = "") -> list[str]:
    """Paths at which two states are not bitwise equal."""
    return list(_differences(left, right, path))


def _differences(left: Any, right: Any, path: str) -> Iterator[str]:
    if isinstance(left, Tensor) and isinstance(right, Tensor):
        same = left.shape == right.shape and left.dtype == right.dtype
        if not same or not torch.equal(left.nan_to_num(nan=12345.0), right.nan_to_num(nan=12345.0)):
            yield path
    elif isinstance(left, dict) and isinstance(right, dict):
        for key in left.keys() | right.keys():
            if key in left and key in right:
                yield from _differences(left[key], right[key], f"{path}/{key}")
            else:
                yield f"{path}/{key} (in one only)"
    elif isinstance(left, list | tuple) and isinstance(right, list | tuple):
        if len(left) != len(right):
            yield f"{path} (length)"
        for index, pair in enumerate(zip(left, right, strict=False)):
            yield from _differences(*pair, f"{path}/{index}")
    elif hasattr(left, "__dict__") and type(left) is type(right) and not callable(left):
        yield from _differences(vars(left), vars(right), path)
    elif left != right and not (left != left and right != right):
        yield path


def is_finite(run: Run) -> bool:
    """Whether all weights and buffers of a run are finite."""
    tensors = [*run.state["parameters"].values(), *run.state["buffers"].values()]
    return all(bool(torch.isfinite(tensor).all()) for tensor in tensors)
