"""Feeds number streams through Lightning's session: only the trainer is a stand-in."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from nan_callbacks.core import GuardConfig, Monitor
from nan_callbacks.core.journal import Journal
from nan_callbacks.lightning.session import GuardSession
from tests.conformance.bare_core import Played
from tests.conformance.record import watching_the_core
from tests.conformance.streams import RATE, Step, Stream, name


class Scaler:
    """A loss scaler whose scale is given."""

    def __init__(self) -> None:
        self.scale = 1.0

    def is_enabled(self) -> bool:
        return True

    def get_scale(self) -> float:
        return self.scale

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


class Module(nn.Module):
    """One number per optimizer: its norm and that of its gradient are those of the stream."""

    device = torch.device("cpu")

    def __init__(self, optimizers: int) -> None:
        super().__init__()
        self.automatic_optimization = optimizers == 1
        for index in range(optimizers):
            self.register_parameter(name(index), nn.Parameter(torch.ones(1)))

    def put(self, values: list[float | None], what: str) -> None:
        """Set every parameter's value (``data``) or gradient (``grad``); None for no gradient."""
        for parameter, value in zip(self.parameters(), values, strict=True):
            setattr(parameter, what, None if value is None else torch.tensor([value]))


class LightningSeam:
    """Plays a stream hook by hook, as Lightning's trainer calls them."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.module = Module(stream.optimizers)
        self.optimizers = [torch.optim.SGD([parameter], RATE) for parameter in self.module.parameters()]
        self.scaler = Scaler()
        self.trainer = SimpleNamespace(
            optimizers=self.optimizers,
            lr_scheduler_configs=[],
            callbacks=[],
            world_size=1,
            global_rank=0,
            global_step=0,
            accumulate_grad_batches=1,
            is_last_batch=False,
            should_stop=False,
            current_epoch=0,
            precision_plugin=SimpleNamespace(scaler=None),
            fit_loop=SimpleNamespace(epoch_loop=SimpleNamespace(batch_idx=0)),
        )
        self.played = Played()
        journal = Journal(None, None)
        self.session = GuardSession(self.trainer, self.module, Monitor(GuardConfig(**stream.settings)), journal)
        # There is no layer to normalise anything: the one number of a stream that no real tensor holds.
        self.session.window.variances.jump = lambda: torch.tensor(self._step.jump)
        self._watch_snapshots()

    def play(self) -> Played:
        with watching_the_core() as seen:
            for index, step in enumerate(self.stream.steps):
                self._index, self._step = index, step
                self._play_one(step)
        self.played.events = self.session.journal.events
        self.played.decisions = seen.decisions
        return self.played

    def _play_one(self, step: Step) -> None:
        loops = self.trainer.fit_loop
        self.trainer.current_epoch, loops.epoch_loop.batch_idx = self.stream.place(self._index)
        if loops.epoch_loop.batch_idx == 0:
            self.session.epoch_start()
        self.trainer.precision_plugin.scaler = None if step.loss_scale is None else self.scaler
        self.scaler.scale = step.loss_scale or 1.0
        self.module.put([step.size] * len(step.updates), "data")
        self.session.batch_start(torch.tensor([1.0 if step.batch_finite else np.nan]))
        # A rollback has just put back the weights of some other step; those of this one are given.
        self.module.put([step.size] * len(step.updates), "data")
        for optimizer, update in zip(self.optimizers, step.updates, strict=True):
            if update.loss is not None:
                self.session.before_backward(_scaled(update.loss, self.scaler.scale))
            index = self.optimizers.index(optimizer)
            self.module.put([u.grad_norm if i == index else None for i, u in enumerate(step.updates)], "grad")
            self.played.limits.append(self.session.monitor.limits(index))
            admitted = self.session.gate(optimizer)
            present = any(parameter.grad is not None for parameter in self.module.parameters())
            assert present is (admitted and update.grad_norm is not None), "a gate that does not do what it says"
        self.session.batch_end()

    def _watch_snapshots(self) -> None:
        snapshots = self.session.snapshots
        capture, restore = snapshots.capture, snapshots.restore

        def noting_capture(slot: int, *args: Any) -> None:
            self.played.snapshots.append(("taken", self._index, slot))
            capture(slot, *args)

        def noting_restore(slot: int, *, streams: bool) -> None:
            self.played.snapshots.append(("restored", self._index, slot))
            restore(slot, streams=streams)

        snapshots.capture, snapshots.restore = noting_capture, noting_restore


def _scaled(loss: float, scale: float) -> Tensor:
    return torch.tensor(loss) * scale
