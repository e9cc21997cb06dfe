"""A cut of the learning rate that survives every scheduler, other people's assignments, and a resume."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


class LearningRateControl:
    """Keeps each group's learning rate at ``scale`` times what the user's own schedule says.

    Multiplying ``param_groups`` once is undone at the next step by every scheduler with a closed form (LambdaLR,
    OneCycleLR, CyclicLR, CosineAnnealingWarmRestarts …). So each scheduler's ``step`` sees the learning rate it
    expects: un-scale, step, re-scale. That is exact for any scheduler, because none is looked into.

    A scheduler is given a subclass of its own class for the time of the fit, rather than an instance attribute:
    torch schedulers save their whole ``__dict__``, and a wrapped ``step`` in there would land in checkpoints.

    Args:
        optimizers: The optimizers of the run.
        schedulers: Their schedulers.
    """

    def __init__(self, optimizers: list[Optimizer], schedulers: list[Any]) -> None:
        self.scale = 1.0
        self.suspended: set[int] = set()
        """``id`` of schedulers whose steps do not count just now, because the optimizer step was dropped."""
        self._optimizers = optimizers
        self._schedulers = schedulers
        self._written: dict[str, tuple[float, float]] = {}
        self._classes: list[tuple[Any, type]] = []

    def install(self) -> None:
        """Take over the schedulers' ``step``."""
        for scheduler in self._schedulers:
            original = type(scheduler)
            self._classes.append((scheduler, original))
            scheduler.__class__ = _guarded_class(original, self)

    def uninstall(self) -> None:
        """Give every scheduler its own class back. The learning rates stay as they are."""
        for scheduler, original in reversed(self._classes):
            scheduler.__class__ = original
        self._classes.clear()

    def set_scale(self, scale: float) -> None:
        """Scale all learning rates from now on.

        Args:
            scale: Factor on the user's schedule; 1 gives the schedule itself.
        """
        self.unscale()
        self.scale = scale
        self.rescale()

    def unscale(self) -> None:
        """Write the learning rates that the user's schedule says."""
        for key, group in self._groups():
            value = _read(group["lr"])
            own, scaled = self._written.get(key, (value, value))
            _write(group, own if value == scaled else self._foreign(value, own, scaled))
        self._written.clear()

    def rescale(self) -> None:
        """Write the scaled learning rates."""
        if self.scale == 1.0:
            return
        for key, group in self._groups():
            own = _read(group["lr"])
            _write(group, own * self.scale)
            self._written[key] = (own, _read(group["lr"]))

    def enforce(self) -> None:
        """Before an update: put the scale back on learning rates that somebody assigned meanwhile."""
        if self.scale == 1.0:
            return
        for key, group in self._groups():
            if key not in self._written or _read(group["lr"]) != self._written[key][1]:
                self.set_scale(self.scale)
                return

    def step(self, scheduler: Any, original_step: Any, *args: Any, **kwargs: Any) -> Any:
        """One scheduler step as the user's schedule sees it."""
        if id(scheduler) in self.suspended:
            return None
        if self.scale == 1.0:
            return original_step(*args, **kwargs)
        self.unscale()
        try:
            return original_step(*args, **kwargs)
        finally:
            self.rescale()

    def state_dict(self) -> dict[str, Any]:
        """Plain state."""
        return {"scale": self.scale, "written": {key: list(pair) for key, pair in self._written.items()}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a state made by :meth:`state_dict`; the groups already hold the scaled values."""
        self.scale = float(state["scale"])
        self._written = {key: (float(own), float(scaled)) for key, (own, scaled) in state["written"].items()}

    def _groups(self) -> list[tuple[str, dict[str, Any]]]:
        return [
            (f"{o}.{g}", group)
            for o, optimizer in enumerate(self._optimizers)
            for g, group in enumerate(optimizer.param_groups)
        ]

    def _foreign(self, value: float, own: float, scaled: float) -> float:
        """The user's own rate behind a value that somebody else wrote.

        Warm-up code assigns absolute rates, which continue the user's schedule; other code multiplies what it finds,
        which continues the scaled one. The nearer continuation (in ratio) is taken.
        """
        if value <= 0 or own <= 0 or scaled <= 0:
            return value
        absolute, relative = abs(math.log(value / own)), abs(math.log(value / scaled))
        return value if absolute <= relative else value / self.scale


def _guarded_class(original: type, control: LearningRateControl) -> type:
    def step(self: Any, *args: Any, **kwargs: Any) -> Any:
        return control.step(self, lambda *a, **k: original.step(self, *a, **k), *args, **kwargs)  # type: ignore[attr-defined]

    return type(original.__name__, (original,), {"step": step, "__module__": original.__module__})


def _read(rate: float | Tensor) -> float:
    return float(rate)


@torch.no_grad()
def _write(group: dict[str, Any], value: float) -> None:
    if isinstance(group["lr"], Tensor):
        group["lr"].fill_(value)  # in place: compiled and capturable optimizers hold on to the tensor
    else:
        group["lr"] = value
