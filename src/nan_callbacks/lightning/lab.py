"""The laboratory of a Lightning fit: how its training step is run again."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from nan_callbacks.lightning.by_hand import handed
from nan_callbacks.lightning.quiet import as_in_training, muted
from nan_callbacks.torch.lab import TorchLab
from nan_callbacks.torch.lab_attributes import FOREIGN
from nan_callbacks.torch.lab_bench import Bench, Fed, Hands, Window
from nan_callbacks.torch.rng import RngState

PACKAGE = __name__.partition(".")[0]


class LightningLab(TorchLab):
    """One incident of a fit, held still.

    The step is the module's own ``training_step``, called on the bare module (no strategy, no callbacks, no
    collectives) under the precision plugin's context, with the run's own clipping, optimizers and their settings.

    Args:
        trainer: The trainer.
        module: Its module.
        failed: The batches of the failed step.
        recent: Windows of accepted steps, oldest first.
        trusted: Returns the ``state_dict()`` of the last known-good snapshot, None without one.
        random_streams: Where the streams were when the step began; None: where they are.
        global_step: What ``trainer.global_step`` said when the step began; None: what it says.
    """

    def __init__(
        self,
        trainer: Any,
        module: Any,
        failed: Window,
        recent: Sequence[Window] = (),
        *,
        trusted: Callable[[], dict[str, Any] | None] = lambda: None,
        random_streams: RngState | None = None,
        global_step: int | None = None,
    ) -> None:
        alone = trainer.world_size == 1
        scaler = getattr(trainer.precision_plugin, "scaler", None)
        schedulers = [config.scheduler for config in trainer.lr_scheduler_configs]
        step = TrainingStep(module, trainer.optimizers, schedulers)
        super().__init__(
            Bench(
                module=module,
                failed=failed,
                loss_of=step.loss_of,
                by_hand=None if module.automatic_optimization else step.by_hand,
                optimizers=list(trainer.optimizers),
                recent=recent,
                precision=trainer.precision_plugin.train_step_context,
                surroundings=lambda: muted(trainer, module, global_step=global_step),
                inside=lambda: as_in_training(module, alone=alone),
                clip=lambda optimizer: clip(trainer, module, optimizer),
                loss_scale=scaler.get_scale() if scaler is not None and scaler.is_enabled() else 1.0,
                trusted=trusted,
                random_streams=random_streams,
                objects=_objects(trainer),
                may_call_backward=alone,
            )
        )


def _objects(trainer: Any) -> list[Any]:
    """What a step may change beside its module: the data module and the callbacks, except those of libraries."""
    own = [each for each in trainer.callbacks if type(each).__module__.partition(".")[0] not in (*FOREIGN, PACKAGE)]
    own = [each for each in own if not any(isinstance(held, nn.Module) for held in vars(each).values())]  # large copies
    return [*([trainer.datamodule] if getattr(trainer, "datamodule", None) is not None else []), *own]


class TrainingStep:
    """A module's training step, called as the trainer calls it.

    Args:
        module: The module.
        optimizers: Its optimizers.
        schedulers: Their schedulers.
    """

    def __init__(self, module: Any, optimizers: Sequence[Optimizer] = (), schedulers: Sequence[Any] = ()) -> None:
        self._module, self._optimizers, self._schedulers = module, optimizers, schedulers
        names = list(inspect.signature(module.training_step).parameters)
        # As Lightning does it: the index is optional, and may have any name.
        self._takes_index = "batch_idx" in names or len(names) >= 2

    def loss_of(self, fed: Fed) -> Tensor | None:
        """The raw loss of one batch; None if the step returned none."""
        arguments = (fed.batch, fed.index) if self._takes_index else (fed.batch,)
        output = self._module.training_step(*arguments)
        loss = output.get("loss") if isinstance(output, Mapping) else output
        return loss if isinstance(loss, Tensor) else None

    def by_hand(self, fed: Fed, hands: Hands) -> None:
        """One step of manual optimisation."""
        with handed(self._module, hands, self._optimizers, self._schedulers):
            self.loss_of(fed)


def clip(trainer: Any, module: Any, optimizer: Optimizer) -> None:
    """The run's own clipping, a hook of the module's included."""
    module.configure_gradient_clipping(
        optimizer,
        gradient_clip_val=trainer.gradient_clip_val,
        gradient_clip_algorithm=trainer.gradient_clip_algorithm,
    )


def can_be_held_still(trainer: Any, module: Any) -> str:
    """Why a fit has no laboratory; empty if it has one.

    Args:
        trainer: The trainer.
        module: Its module.
    """
    if trainer.strategy.restore_checkpoint_after_setup or any(hasattr(p, "placements") for p in module.parameters()):
        return "the model is sharded over several processes"
    if "dataloader_iter" in inspect.signature(module.training_step).parameters:
        return "the training step draws its batches itself"
    if trainer.world_size > 1 and not module.automatic_optimization:
        return "a step by hand waits for the other processes"
    return ""
