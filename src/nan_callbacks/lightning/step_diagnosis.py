"""One training step of a Lightning module examined on its own, without a trainer."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

from torch.optim import Optimizer

from nan_callbacks.diagnosis.diagnosis import Diagnosis
from nan_callbacks.diagnosis.saved_step import SavedStep
from nan_callbacks.errors import ConfigurationError
from nan_callbacks.lightning.lab import TrainingStep
from nan_callbacks.lightning.quiet import MUTED
from nan_callbacks.torch.lab_bench import Fed, Window
from nan_callbacks.torch.rng import RngState
from nan_callbacks.torch.saving import load_weights, streams_of, window_of
from nan_callbacks.torch.step_diagnosis import LoneStep, examine


def diagnose_step(
    module: Any,
    batch: Any,
    *,
    batch_index: int = 0,
    optimizer: Optimizer | Sequence[Optimizer] | None = None,
    recent: Sequence[Any] = (),
    save_batch: Any = None,
    budget_s: float = 30.0,
) -> Diagnosis:
    """Examine one ``training_step``. What is changed for that is put back bit by bit; nothing is logged.

    Args:
        module: The module, with the weights to examine; it is run in training mode.
        batch: The batch, on the module's device.
        batch_index: The ``batch_idx`` that the step is given.
        optimizer: The optimizer (or those of manual optimisation), for experiments that train a few steps. None: what
            ``configure_optimizers`` makes, if it can do so without a trainer.
        recent: Batches that went well, oldest first, to compare with.
        save_batch: Folder into which batch and weights are written; None: nothing is written.
        budget_s: Seconds that the examination may take.

    Returns:
        The cause, with what was tried.
    """
    windows = [(Fed(each),) for each in recent]
    return _examine(module, (Fed(batch, batch_index),), windows, optimizer, None, save_batch, budget_s)


def replay_saved(module: Any, step: SavedStep, *, budget_s: float = 30.0) -> Diagnosis:
    """Examine a saved step again.

    Args:
        module: Of the same structure; it is given the saved weights.
        step: The saved step.
        budget_s: Seconds that the examination may take.
    """
    load_weights(module, step)
    failed, recent = window_of(step)
    return _examine(module, failed, recent, None, streams_of(step), None, budget_s)


def _examine(
    module: Any,
    failed: Window,
    recent: Sequence[Window],
    optimizer: Optimizer | Sequence[Optimizer] | None,
    random_streams: RngState | None,
    save_batch: Any,
    budget_s: float,
) -> Diagnosis:
    optimizers = optimizers_of(module, optimizer)
    if not module.automatic_optimization and not optimizers:
        raise ConfigurationError.of(
            "optimizer",
            "the optimizers of a module with manual optimisation",
            optimizer,
            "They could not be made by `configure_optimizers` without a trainer; pass them.",
        )
    step = TrainingStep(module, optimizers)
    return examine(
        LoneStep(
            module=module,
            failed=failed,
            loss_of=step.loss_of,
            by_hand=None if module.automatic_optimization else step.by_hand,
            optimizers=optimizers,
            recent=recent,
            framework="lightning",
            inside=lambda: alone(module),
            random_streams=random_streams,
        ),
        save_batch=save_batch,
        budget_s=budget_s,
    )


@contextlib.contextmanager
def alone(module: Any) -> Iterator[None]:
    """In training mode and silent; what is changed on the module is put back by the laboratory."""
    module.train()
    vars(module).update({name: lambda *_, **__: None for name in MUTED})
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def optimizers_of(module: Any, given: Optimizer | Sequence[Optimizer] | None) -> list[Optimizer]:
    """The optimizers that were given, or those that the module makes."""
    if given is not None:
        return [given] if isinstance(given, Optimizer) else list(given)
    streams = RngState()
    try:
        made = module.configure_optimizers()
    except Exception:  # it may ask a trainer for anything; then no trial trains
        return []
    finally:
        streams.restore()
    if isinstance(made, tuple) and len(made) == 2 and isinstance(made[0], list):
        made = made[0]
    entries = list(made) if isinstance(made, list | tuple) else [made]
    found = [entry.get("optimizer") if isinstance(entry, dict) else entry for entry in entries]
    return [each for each in found if isinstance(each, Optimizer)]
