"""A cut of the learning rate that survives every scheduler, other people's assignments, and a resume."""

from __future__ import annotations

import copyreg
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

    While there is a scale, or a scheduler must not step, schedulers are given a subclass of their own class rather than
    an instance attribute: torch schedulers save their whole ``__dict__``, and a wrapped ``step`` in there would land in
    checkpoints. The rest of the time, nearly always, they are what they were.

    Args:
        optimizers: The optimizers of the run.
        schedulers: Their schedulers.
    """

    def __init__(self, optimizers: list[Optimizer], schedulers: list[Any]) -> None:
        self.scale = 1.0
        self._suspended: set[int] = set()
        """``id`` of schedulers whose steps do not count just now, because the optimizer step was dropped."""
        self._optimizers = optimizers
        self._schedulers = schedulers
        self._written: dict[str, tuple[float, float]] = {}
        self._assigned: set[str] = set()
        """Groups to which somebody was seen to assign the rate of the schedule, whatever the group held."""
        self._classes: list[tuple[Any, type]] = []

    def install(self) -> None:
        """Take over the schedulers' ``step``."""
        self.adopt(self._schedulers)

    def adopt(self, schedulers: list[Any]) -> None:
        """Take over schedulers that came later, as stochastic weight averaging brings one; known ones are passed over.

        Args:
            schedulers: The schedulers that the trainer steps at present.
        """
        for scheduler in schedulers:
            if not any(scheduler is known for known, _ in self._classes):
                self._classes.append((scheduler, type(scheduler)))
        self._take_over_if_needed()

    def suspend(self, schedulers: set[int]) -> None:
        """The next steps of some schedulers do not count: the optimizer step that they follow was dropped.

        Args:
            schedulers: Their ``id``.
        """
        self._suspended |= schedulers
        self._take_over_if_needed()

    def resume(self, schedulers: set[int] | None = None) -> None:
        """Schedulers step again.

        Args:
            schedulers: Their ``id``; all of them by default.
        """
        if self._suspended:
            self._suspended = set() if schedulers is None else self._suspended - schedulers
            self._take_over_if_needed()

    @property
    def is_suspending(self) -> bool:
        """Whether there are schedulers whose next steps do not count."""
        return bool(self._suspended)

    def _take_over_if_needed(self) -> None:
        needed = self.scale != 1.0 or bool(self._suspended)
        for scheduler, original in self._classes:
            if needed == (type(scheduler) is original):
                scheduler.__class__ = _guarded_class(original, self) if needed else original

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
        self._take_over_if_needed()
        self.rescale()

    def unscale(self) -> None:
        """Write the learning rates that the user's schedule says."""
        for key, group in self._groups():
            if key not in self._written:
                continue
            value, (own, scaled) = _read(group["lr"]), self._written[key]
            _write(group, own if value == scaled else self._foreign(key, value, own, scaled))
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
        if id(scheduler) in self._suspended:
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
        return {
            "scale": self.scale,
            "written": {key: list(pair) for key, pair in self._written.items()},
            "assigned": sorted(self._assigned),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a state made by :meth:`state_dict`; the groups already hold the scaled values."""
        self.scale = float(state["scale"])
        self._written = {key: (float(own), float(scaled)) for key, (own, scaled) in state["written"].items()}
        self._assigned = set(state["assigned"])
        self._take_over_if_needed()

    def _groups(self) -> list[tuple[str, dict[str, Any]]]:
        return [
            (f"{o}.{g}", group)
            for o, optimizer in enumerate(self._optimizers)
            for g, group in enumerate(optimizer.param_groups)
            if group.get("lr") is not None  # some optimizers find theirs by themselves
        ]

    def _foreign(self, key: str, value: float, own: float, scaled: float) -> float:
        """The user's own rate behind a value that somebody else wrote.

        Warm-up code assigns absolute rates, which continue the user's schedule; other code multiplies what it finds,
        which continues the scaled one. Who assigns what the schedule says anyway, assigns; otherwise the nearer
        continuation (in ratio) is taken.
        """
        if value == own:
            self._assigned.add(key)
        if key in self._assigned or min(value, own, scaled) <= 0:
            return value
        absolute, relative = abs(math.log(value / own)), abs(math.log(value / scaled))
        return value if absolute <= relative else value / self.scale


def _guarded_class(original: Any, control: LearningRateControl) -> type:
    """A subclass that looks like the original and steps under control; copies of its instances are originals."""

    def step(self: Any, *args: Any, **kwargs: Any) -> Any:
        return control.step(self, lambda *a, **k: original.step(self, *a, **k), *args, **kwargs)

    def __reduce_ex__(self: Any, protocol: Any) -> Any:  # noqa: N807
        make, arguments, *rest = original.__reduce_ex__(self, protocol)
        if make is copyreg.__newobj__:  # type: ignore[attr-defined]
            make, arguments = object.__new__, (original,)
        return make, arguments, *rest

    namespace = {name: getattr(original, name) for name in ("__module__", "__qualname__", "__doc__")}
    return type(original.__name__, (original,), {**namespace, "step": step, "__reduce_ex__": __reduce_ex__})


def _read(rate: float | Tensor) -> float:
    return float(rate)


@torch.no_grad()
def _write(group: dict[str, Any], value: float) -> None:
    if isinstance(group["lr"], Tensor):
        group["lr"].fill_(value)  # in place: compiled and capturable optimizers hold on to the tensor
    else:
        group["lr"] = value
