"""Building and training the programs for Lightning."""

from __future__ import annotations

import logging
import statistics
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer, seed_everything

from benchmarks.diagnosis.guarded import Guarded
from benchmarks.diagnosis.program import LightningRun, Program

SEED = 0
QUIET: dict[str, Any] = {
    "accelerator": "cpu",
    "devices": 1,
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}


@contextmanager
def quiet() -> Iterator[None]:
    for name in ("pytorch_lightning", "lightning.pytorch", "lightning_fabric", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def build(program: Program) -> LightningRun:
    seed_everything(SEED, verbose=False)
    run: LightningRun = program.build()
    return run


def fit(run: LightningRun, callbacks: Sequence[Callback] = (), **more: Any) -> Trainer:
    arguments = {**QUIET, **run.trainer, **more}
    own = arguments.pop("callbacks", [])
    trainer = Trainer(**arguments, callbacks=[*own, *callbacks])
    trainer.fit(run.module, run.loader)
    return trainer


class Recorder(Callback):
    """Loss and gradient norm of each step."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.grad_norms: list[float] = []

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        self.grad_norms.append(float(torch.nn.utils.get_total_norm(gradients)) if gradients else 0.0)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        loss = outputs["loss"] if outputs else trainer.callback_metrics["loss"]  # manual optimisation returns nothing
        self.losses.append(float(loss))


def train_and_record(program: Program) -> tuple[tuple[float, ...], tuple[float, ...], bool, str]:
    """Losses, gradient norms, whether the weights ended finite, and what was raised."""
    recorder, raised = Recorder(), ""
    with quiet():
        run = build(program)
        try:
            fit(run, [recorder])
        except Exception as error:
            raised = f"{type(error).__name__}: {error}"
    weights_finite = all(bool(p.isfinite().all()) for p in run.module.parameters())
    return tuple(recorder.losses), tuple(recorder.grad_norms), weights_finite, raised


class Clock(Callback):
    """Seconds of each batch."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._start = 0.0

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self._start = time.perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.seconds.append(time.perf_counter() - self._start)


def train_guarded(program: Program, ask: bool) -> Guarded:
    """Train with a guard, and ask for a diagnosis at the end where nothing else would call for one."""
    from nan_callbacks.lightning import NaNGuard

    clock = Clock()
    with quiet():
        run = build(program)
        guard = NaNGuard(verbose=False, strict=True, **program.guard)
        raised = ""
        try:
            fit(run, [guard, clock])
        except Exception as error:
            raised = f"{type(error).__name__}: {error}"
        asked = [guard.diagnose()] if ask else []
    return Guarded(tuple(guard.incidents), asked, statistics.median(clock.seconds or [0.0]), raised)


def own_tool(program: Program) -> str:
    """What ``detect_anomaly`` prints and raises; empty if it stays silent."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        seed_everything(SEED, verbose=False)
        run = program.build()
        try:
            fit(run, detect_anomaly=True)
        except Exception as error:
            if "returned nan" not in str(error):
                return ""
            traces = [str(warning.message) for warning in caught if "Error detected in" in str(warning.message)]
            return "\n".join([*traces, str(error)])
        finally:
            torch.autograd.set_detect_anomaly(False)
    return ""
