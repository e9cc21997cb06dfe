"""A `Trainer.fit` that is held open, so that several can take turns step by step within one process."""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from benchmarks.overhead.lightning.arms import Arm
from benchmarks.overhead.lightning.workloads import Workload
from benchmarks.overhead.stopwatch import Function, Stopwatch

BATCHES = 8
"""Different batches, used in turn."""
EPOCH_STEPS = 1_000_000
"""Steps of the one epoch: more than any run makes."""
LEARNING_RATE = 1e-4
"""So small that labels without a meaning give no cause for an incident."""


@dataclass(frozen=True)
class Step:
    """CPU seconds of one step.

    Attributes:
        index: Its number within the fit.
        whole: All of it.
        own: The part of whoever guards the arm.
    """

    index: int
    whole: float
    own: float


class Classifier(LightningModule):
    """A plain classifier under AdamW, with a schedule that moves at every step.

    Args:
        net: The model.
        schedule: Class of the schedule.
    """

    def __init__(self, net: nn.Module, schedule: type[LambdaLR]) -> None:
        super().__init__()
        self.net = net
        self.schedule = schedule

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        inputs, classes = batch
        return nn.functional.cross_entropy(self.net(inputs), classes)

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(self.parameters(), lr=LEARNING_RATE)
        schedule = self.schedule(optimizer, lambda step: 1.0 / (1.0 + 1e-3 * step))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        scheduler.step()


class Loader:
    """The same few batches over and over."""

    def __init__(self, workload: Workload) -> None:
        generator = torch.Generator().manual_seed(1)
        self.batches = [workload.batch(generator) for _ in range(BATCHES)]

    def __len__(self) -> int:
        return EPOCH_STEPS

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return (self.batches[index % BATCHES] for index in range(EPOCH_STEPS))


class OpenFit:
    """One arm of the comparison: a trainer, whose epoch is advanced from outside.

    Args:
        arm: What guards it.
        workload: What it trains.
    """

    def __init__(self, arm: Arm, workload: Workload) -> None:
        self.arm = arm
        self.callback = arm.callback() if arm.callback else None
        self._workload = workload
        self._watch = Stopwatch()
        self._steps = 0
        self._advance: Callable[[], None] | None = None

    def hold_open(self, use: Callable[[], None]) -> None:
        """Fit up to the first batch, call ``use``, which may make steps, and then end the fit in an orderly way."""
        torch.manual_seed(0)
        foreign = self._watch.foreign if self.callback else (lambda function: function)
        schedule = type("TimedLambdaLR", (LambdaLR,), {"step": foreign(LambdaLR.step)})
        module = Classifier(self._workload.build(), schedule)
        self._trainer = trainer = Trainer(
            accelerator="cpu", devices=1, max_epochs=1, logger=False, enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False,
            callbacks=[self.callback] if self.callback else [], **self.arm.options,
        )  # fmt: skip
        loop = trainer.fit_loop.epoch_loop

        def run(fetcher: Any) -> None:
            def advance() -> None:
                loop.advance(fetcher)
                loop.on_advance_end(fetcher)
                loop.on_iteration_done()

            loop.reset()
            loop.on_run_start(fetcher)
            self._advance = advance
            with self._own_places(module):
                use()

        plugin: Any = trainer.precision_plugin
        with ExitStack() as places:
            places.enter_context(replaced(loop, "run", run))
            places.enter_context(replaced(plugin, "_clip_gradients", foreign(plugin._clip_gradients)))
            places.enter_context(replaced(trainer, "save_checkpoint", foreign(write_nothing)))
            trainer.fit(module, Loader(self._workload))

    def steps(self, count: int) -> list[Step]:
        """Make some steps and time each."""
        assert self._advance is not None
        made = []
        with torch.autograd.set_detect_anomaly(self.arm.detects_anomalies):  # a switch of the whole process
            for _ in range(count):
                own, began = self._watch.seconds, time.process_time()
                self._advance()
                whole = time.process_time() - began
                made.append(Step(self._steps, whole, self._watch.seconds - own))
                self._steps += 1
        return made

    def own_checkpoint_seconds(self) -> float:
        """CPU seconds that whoever guards the arm adds to the writing of a checkpoint."""
        before = self._watch.seconds
        self._trainer.save_checkpoint("nowhere")
        return self._watch.seconds - before

    @contextmanager
    def _own_places(self, module: LightningModule) -> Iterator[None]:
        """Time the callback's hooks, and the places that it may have taken over when the training began."""
        own: list[tuple[Any, str]] = []
        if self.callback is not None:
            own += [(self.callback, name) for name in overridden_hooks(self.callback)]
            own += [(self._trainer, "save_checkpoint"), (module, "lr_scheduler_step")]
        if self.arm.has_own_time:
            own.append((self._trainer.precision_plugin, "_clip_gradients"))
        with ExitStack() as places:
            for owner, name in own:
                places.enter_context(replaced(owner, name, self._watch.own(getattr(owner, name))))
            yield


def hold_all_open(fits: Sequence[OpenFit], use: Callable[[], None]) -> None:
    """Open one fit inside the other, call ``use`` when all are open, and close them.

    ``use`` is called in a thread of its own, whose stack is as short as that of an ordinary fit: on top of several
    open ones, some calls would cross the end of a block of the interpreter's stack and cost ten times as much.
    """
    if not fits:
        with ThreadPoolExecutor(max_workers=1) as thread:
            thread.submit(use).result()
        return
    first, *rest = fits
    first.hold_open(lambda: hold_all_open(rest, use))


def overridden_hooks(callback: Callback) -> list[str]:
    """Names of the hooks that a callback does something in."""
    names = [name for name in dir(Callback) if name.startswith("on_")]
    return [name for name in names if getattr(type(callback), name) is not getattr(Callback, name)]


def write_nothing(*args: Any, **kwargs: Any) -> None:
    """Stands for the writing of a checkpoint, which is not what is measured."""


@contextmanager
def replaced(owner: Any, name: str, replacement: Function) -> Iterator[None]:
    """An attribute of one object replaced for a while."""
    found = vars(owner).get(name)
    setattr(owner, name, replacement)
    try:
        yield
    finally:
        if found is None:
            delattr(owner, name)
        else:
            setattr(owner, name, found)
