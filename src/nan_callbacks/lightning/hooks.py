"""The places in a running trainer that no callback hook reaches, taken over for the time of a fit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch.optim import Optimizer

from nan_callbacks.torch.gate import WithheldSteps, has_gradients, is_of_torch


class TrainerHooks:
    """Puts the gate after all other hooks, into strange optimizers as well, and a check before every checkpoint.

    The gate must come last: after unscaling, after the user's own ``on_before_optimizer_step`` has seen the real
    gradients, and instead of clipping (which would fail on dropped ones). Lightning calls
    ``precision_plugin._clip_gradients`` at exactly that point, in automatic and manual optimisation, whether or not
    anything is clipped.

    Args:
        trainer: The trainer.
        gate: Decides about an optimizer's coming step; returns False if it was dropped.
        before_checkpoint: Called before a checkpoint is composed.
    """

    def __init__(self, trainer: Any, gate: Callable[[Optimizer], bool], before_checkpoint: Callable[[], None]) -> None:
        self._trainer = trainer
        self._gate = gate
        self._before_checkpoint = before_checkpoint
        self.withheld = WithheldSteps()
        self._patched: list[tuple[Any, str, Any, Any]] = []

    def install(self) -> None:
        """Take over."""
        plugin = self._trainer.precision_plugin
        clip, save = plugin._clip_gradients, self._trainer.save_checkpoint
        foreign = [each for each in self._trainer.optimizers if not is_of_torch(each)]

        def clip_unless_dropped(model: Any, optimizer: Any, *args: Any, **kwargs: Any) -> Any:
            stepping = getattr(optimizer, "_optimizer", optimizer)
            had_gradients = has_gradients(stepping)
            self.withheld.forget()
            admitted = self._gate(stepping)
            # The second condition matters if the guard failed, and stepped aside, after it had dropped the gradients.
            if admitted and has_gradients(stepping) == had_gradients:
                return clip(model, optimizer, *args, **kwargs)
            if stepping in foreign:
                self.withheld.withhold(stepping)
            return None

        def save_checked(*args: Any, **kwargs: Any) -> Any:
            self._before_checkpoint()
            return save(*args, **kwargs)

        self._patch(plugin, "_clip_gradients", clip_unless_dropped)
        self._patch(self._trainer, "save_checkpoint", save_checked)
        for optimizer in foreign:
            self._patch(optimizer, "step", self.withheld.wrap(optimizer))

    def uninstall(self) -> None:
        """Give everything back as it was found."""
        for owner, name, found, replacement in reversed(self._patched):
            if vars(owner).get(name) is not replacement:
                continue  # somebody has wrapped our replacement, which passes everything on from now on
            if found is None:
                del vars(owner)[name]
            else:
                setattr(owner, name, found)
        self._patched.clear()

    def _patch(self, owner: Any, name: str, replacement: Callable[..., Any]) -> None:
        self._patched.append((owner, name, vars(owner).get(name), replacement))
        setattr(owner, name, replacement)
