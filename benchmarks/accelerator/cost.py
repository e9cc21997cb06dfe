"""What the guard costs a step on an accelerator: reads of the device, and time beside no guard and beside clipping."""

from __future__ import annotations

import statistics
import time
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, seed_everything
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.accelerator.lightning import Check, guard
from benchmarks.accelerator.runs import train
from nan_callbacks.lightning import NaNGuard

ROUNDS, STEPS = 4, 40
"""Turns of each arm, and steps of each turn; the first half of a turn warms up. Lightning clips nothing for a fused
optimizer under mixed precision, so that arm is left out there."""


class Transformer(LightningModule):
    """About 85 million weights on 16 thousand tokens a step, in bfloat16.

    Args:
        fused: Whether the optimizer is fused.
    """

    def __init__(self, *, fused: bool, small: bool) -> None:
        super().__init__()
        width, depth = (64, 2) if small else (768, 12)
        self.embed = nn.Embedding(256, width)
        layer = nn.TransformerEncoderLayer(width, max(1, width // 64), 4 * width, 0.0, batch_first=True)
        self.blocks = nn.TransformerEncoder(layer, depth)
        self.head = nn.Linear(width, 256)
        self.fused = fused

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        logits = self.head(self.blocks(self.embed(batch[0])))
        return F.cross_entropy(logits.flatten(0, 1), batch[1].flatten())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=1e-4, fused=self.fused)


class Clock(Callback):
    """Seconds of the second half of a turn, and warnings about reads of the device in it."""

    def __init__(self, device: str) -> None:
        self.on_gpu = device == "gpu"
        self.seconds, self.reads = 0.0, 0.0

    def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx == STEPS // 2:
            self._wait()
            self._began = time.perf_counter()

    def on_train_end(self, trainer: Any, module: Any) -> None:
        self._wait()
        self.seconds = (time.perf_counter() - self._began) / (STEPS - STEPS // 2)

    def _wait(self) -> None:
        if self.on_gpu:
            torch.cuda.synchronize()


def reads_per_step(arm: dict[str, Any], fused: bool, device: str) -> float:
    """Reads of the device in a step, as PyTorch's own sync debugging counts them."""
    if device != "gpu":
        return 0.0
    seen: list[str] = []
    original = warnings.showwarning
    torch.cuda.set_sync_debug_mode("warn")
    try:
        seed_everything(0, verbose=False)
        counter = Counter(seen)
        train(
            Transformer(fused=fused, small=True),
            tokens(STEPS, small=True),
            device=device,
            others=[counter],
            **made(arm),
        )
    finally:
        torch.cuda.set_sync_debug_mode("default")
        warnings.showwarning = original
    return sum("synchronizing" in text for text in seen) / STEPS


class Counter(Callback):
    """Keeps the texts of all warnings of a run, which is silent otherwise."""

    def __init__(self, seen: list[str]) -> None:
        self.seen = seen

    def on_train_start(self, trainer: Any, module: Any) -> None:
        warnings.simplefilter("always")
        warnings.showwarning = lambda message, *rest: self.seen.append(str(message))  # type: ignore[assignment]


def tokens(count: int, *, small: bool) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    shape = (4, 32) if small else (32, 512)
    drawn = [torch.randint(0, 256, shape, generator=generator) for _ in range(count)]
    return [(each, each.roll(-1, 1)) for each in drawn]


def made(arm: dict[str, Any]) -> dict[str, Any]:
    return {name: value() if callable(value) else value for name, value in arm.items()}


ARMS: dict[str, dict[str, Any]] = {
    "no guard": {},
    "no guard again": {},
    "guard": {"guard": lambda: guard(checkup=False)},
    "gradient_clip_val=1": {"gradient_clip_val": 1.0},
}


def checks(device: str) -> Iterator[Check]:
    small = device == "cpu"
    for fused in (False, True):
        name = "AdamW fused" if fused else "AdamW"
        arms = {arm: given for arm, given in ARMS.items() if not (fused and "gradient_clip_val" in given)}
        reads = {arm: reads_per_step(given, fused, device) for arm, given in arms.items() if arm != "no guard again"}
        yield f"device reads a step, {name}", True, ", ".join(f"{arm} {count:.2f}" for arm, count in reads.items())
        seconds: dict[str, list[float]] = {arm: [] for arm in arms}
        for number in range(ROUNDS):
            for arm, given in list(arms.items())[:: 1 if number % 2 else -1]:
                seconds[arm].append(timed(given, fused, device, small))
        step = statistics.median(seconds["no guard"])
        ratios = {
            arm: statistics.median(a / b for a, b in zip(times, seconds["no guard"], strict=True))
            for arm, times in seconds.items()
        }
        told = ", ".join(f"{arm} ×{ratio:.3f}" for arm, ratio in ratios.items() if arm != "no guard")
        yield f"time of a step ({1e3 * step:.1f} ms), {name}", True, told


def timed(arm: dict[str, Any], fused: bool, device: str, small: bool) -> float:
    seed_everything(0, verbose=False)
    clock = Clock(device)
    given = made(arm)
    watching: NaNGuard | None = given.pop("guard", None)
    train(
        Transformer(fused=fused, small=small), tokens(STEPS, small=small), device=device, guard=watching,
        others=[clock], precision="bf16-mixed", **given,
    )  # fmt: skip
    return clock.seconds
