"""Record the numbers of every optimizer step of a run, for tuning detectors without training again.

Usage: python -m benchmarks.healthy.recording DIRECTORY [--seeds N] [--only NAME ...]
"""

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor
from torch.optim import Optimizer

PARAM_NORM_EVERY = 16
"""Parameter norms move slowly; one in sixteen steps shows their trend at a small cost."""


class StreamRecorder(Callback):
    """Keeps one row for each call of `on_before_optimizer_step`.

    A row holds the optimizer's index, the loss (mean over the accumulated micro-batches, before the division
    by their number), the global L2 norm of the optimizer's gradients before clipping, the L2 norm of its
    parameters (every 16th row, else NaN) and the learning rate of its first group. LBFGS gives one row per
    closure call.
    """

    def __init__(self) -> None:
        self.rows: list[tuple[float, float, float, float, float]] = []
        self._losses: list[Tensor] = []
        self._last_loss = float("nan")

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        divided_by = trainer.accumulate_grad_batches if pl_module.automatic_optimization else 1
        self._losses.append(loss.detach() * divided_by)

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        if self._losses:
            self._last_loss = float(torch.stack(self._losses).float().mean())
            self._losses.clear()
        index = next(i for i, known in enumerate(trainer.optimizers) if known is optimizer)
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        grad_norm = global_norm([p.grad for p in parameters if p.grad is not None])
        on_cadence = len(self.rows) % PARAM_NORM_EVERY == 0
        param_norm = global_norm([p.detach() for p in parameters]) if on_cadence else float("nan")
        lr = float(optimizer.param_groups[0]["lr"])
        self.rows.append((index, self._last_loss, grad_norm, param_norm, lr))

    def arrays(self) -> dict[str, Any]:
        """The rows as columns: optimizer (integers), loss, grad_norm, param_norm, lr (float64)."""
        table = np.asarray(self.rows, dtype=np.float64).reshape(-1, 5)
        names = ("optimizer", "loss", "grad_norm", "param_norm", "lr")
        columns = dict(zip(names, table.T, strict=True))
        return columns | {"optimizer": columns["optimizer"].astype(np.int64)}


def global_norm(tensors: list[Tensor]) -> float:
    """L2 norm over all the tensors in float32; a sparse gradient counts through its coalesced values."""
    dense = [t.coalesce().values() if t.is_sparse else t for t in tensors]
    if not dense:
        return 0.0
    norms = torch._foreach_norm([t.float() for t in dense])
    return float(torch.linalg.vector_norm(torch.stack(norms)))


def main() -> None:
    """Record the asked-for runs, one file for each run and seed."""
    from benchmarks.healthy import HEALTHY_RUNS, silence_lightning

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", type=Path)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--only", nargs="*", choices=sorted(HEALTHY_RUNS), default=None)
    options = parser.parse_args()
    options.directory.mkdir(parents=True, exist_ok=True)
    silence_lightning()
    torch.set_num_threads(1)
    for seed in range(options.seeds):
        for name in options.only or HEALTHY_RUNS:
            began = time.perf_counter()
            recorder = StreamRecorder()
            HEALTHY_RUNS[name].train(seed, [recorder])
            columns = recorder.arrays()
            np.savez(options.directory / f"{name}-{seed}.npz", **columns)
            loss, seconds = columns["loss"], time.perf_counter() - began
            tenth = max(1, len(loss) // 10)
            first, last = np.median(loss[:tenth]), np.median(loss[-tenth:])
            summary = f"{len(loss)} rows, {seconds:.1f} s, loss {first:.3g} -> {last:.3g}"
            print(f"{name}-{seed}: {summary}", flush=True)


if __name__ == "__main__":
    main()
