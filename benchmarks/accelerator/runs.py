"""Small Lightning runs on an accelerator, and everything that they leave behind."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer, seed_everything
from torch import Tensor, nn
from torch.nn import functional as F

from nan_callbacks.lightning import NaNGuard

STEPS, BAD = 30, 21
"""Steps of a run, and the one whose batch is bad: after the warm-up of the limits."""
Batch = tuple[Tensor, Tensor]

OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "SGD": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9),
    "AdamW": lambda p: torch.optim.AdamW(p, lr=0.003),
    "AdamW fused": lambda p: torch.optim.AdamW(p, lr=0.003, fused=True),
}


class Net(nn.Module):
    """Convolution, batch normalisation, dropout and attention."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv1d(4, 32, 3, padding=1), nn.BatchNorm1d(32), nn.GELU(), nn.Dropout(0.1))
        self.mix = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True)
        self.head = nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.mix(self.stem(x).transpose(1, 2)).mean(1))


class Small(LightningModule):
    """Classifies short signals.

    Args:
        optimizer: Makes it.
    """

    def __init__(self, optimizer: Callable[[Any], torch.optim.Optimizer]) -> None:
        super().__init__()
        self.net = Net()
        self._optimizer = optimizer

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        loss = F.cross_entropy(self.net(batch[0]), batch[1])
        self.log("loss", loss, on_epoch=True)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return self._optimizer(self.parameters())


class TakesLogarithm(Small):
    """A logarithm of something that is zero for one row of the bad batch."""

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        reach = torch.log(batch[0].abs().amax((1, 2))).mean()
        return super().training_step(batch, batch_idx) + 0.01 * reach * self.net.head.bias.sum()


def batches(count: int = STEPS) -> list[Batch]:
    """Batches of a problem that can be learnt."""
    generator = torch.Generator().manual_seed(1)
    made = []
    for _ in range(count):
        y = torch.randint(0, 5, (64,), generator=generator)
        x = torch.randn(64, 4, 16, generator=generator) + y[:, None, None].float() * 0.3
        made.append((x, y))
    return made


def with_bad(made: list[Batch], value: float) -> list[Batch]:
    """The batches with an added bad one: a single value, or a whole row of zeros for 0."""
    x, y = (part.clone() for part in made[0])
    if value == 0.0:
        x[3] = 0.0
    else:
        x[3, 2, 5] = value
    return [*made[:BAD], (x, y), *made[BAD:]]


class Batches:
    """A loader of the same batches in the same order."""

    def __init__(self, made: list[Batch]) -> None:
        self.made = made

    def __len__(self) -> int:
        return len(self.made)

    def __iter__(self) -> Iterator[Batch]:
        return iter(self.made)


def train(
    module: LightningModule,
    made: list[Batch],
    *,
    device: str,
    guard: NaNGuard | None = None,
    others: Sequence[Callback] = (),
    **trainer: Any,
) -> dict[str, Tensor]:
    """Fit, and return the state: weights, buffers, optimizer, random stream of the device."""
    for name in ("pytorch_lightning", "lightning.pytorch", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        runner = Trainer(
            accelerator=device,
            devices=1,
            max_epochs=1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            deterministic=True,
            callbacks=[*others, *([] if guard is None else [guard])],
            **trainer,
        )
        runner.fit(module, Batches(made))
    state = {name: value.detach().cpu().clone() for name, value in module.state_dict().items()}
    for number, slots in runner.optimizers[0].state_dict()["state"].items():
        state.update({f"{number}/{key}": torch.as_tensor(value).detach().cpu() for key, value in slots.items()})
    state["stream"] = torch.cuda.get_rng_state() if device == "gpu" else torch.get_rng_state()
    return state


def fresh(kind: type[Small], optimizer: str) -> Small:
    """A module with the same weights every time."""
    seed_everything(0, verbose=False)
    return kind(OPTIMIZERS[optimizer])


def difference(a: dict[str, Tensor], b: dict[str, Tensor]) -> str:
    """Names of what differs in any bit; empty if nothing does."""
    differing = [name for name in a if name not in b or not torch.equal(a[name], b[name])]
    return ", ".join(differing[:3]) + (f" and {len(differing) - 3} more" if len(differing) > 3 else "")
