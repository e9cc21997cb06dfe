"""Logged metrics and torchmetrics: put back after a dropped batch, so that an epoch's mean stays finite."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from nan_callbacks.torch.snapshot import clone_tree


class MetricMemory:
    """State of everything that ``self.log`` and torchmetrics accumulate, as it was at the start of a step.

    Lightning offers no public way to its result collection; the attributes used here are read defensively, and what
    is not found is not kept.

    Args:
        trainer: The trainer of the fit.
        module: The module; its torchmetrics are kept as well.
    """

    def __init__(self, trainer: Any, module: torch.nn.Module) -> None:
        self._trainer = trainer
        self._module = module
        self.refresh()
        self.capture()

    def refresh(self) -> None:
        """Look for torchmetrics anew."""
        self._metrics = [each for each in self._module.modules() if isinstance(each, Metric)]

    def capture(self) -> None:
        """Remember the present state."""
        results = self._results()
        # Lightning replaces the tensors of its own results rather than changing them: references are enough.
        self._logged = {key: (result, dict(vars(result))) for key, result in results.items()}
        self._states = [(metric, _capture_metric(metric)) for metric in self._metrics]

    def restore(self, *, only_non_finite: bool = False) -> None:
        """Put the remembered state back; what was logged first since then is forgotten.

        Args:
            only_non_finite: Leave metrics alone whose state is finite.
        """
        results = self._results()
        for key in list(results):
            if only_non_finite and _finite(vars(results[key])):
                continue
            if key not in self._logged:
                del results[key]
                continue
            result, attributes = self._logged[key]
            vars(result).update(attributes)
            vars(result)["_forward_cache"] = None  # nothing is logged for a step that did not happen
            results[key] = result
        for metric, state in self._states:
            if not only_non_finite or not _finite(vars(metric)):
                _restore_metric(metric, state)

    def snapshot(self) -> dict[str, Any]:
        """A copy of the present values, for a rollback within the same epoch."""
        return {
            "epoch": self._trainer.current_epoch,
            "logged": {
                key: {name: clone_tree(value) for name, value in vars(result).items() if _is_value(name, value)}
                for key, result in self._results().items()
            },
            "states": [_detached(_capture_metric(metric)) for metric in self._metrics],
        }

    def restore_snapshot(self, saved: dict[str, Any]) -> None:
        """Put a copy made by :meth:`snapshot` back if it is of the present epoch."""
        if saved["epoch"] != self._trainer.current_epoch or len(saved["states"]) != len(self._metrics):
            return
        results = self._results()
        for key in list(results):
            if key in saved["logged"]:
                vars(results[key]).update(clone_tree(saved["logged"][key]), _computed=None)
            else:
                del results[key]
        for metric, state in zip(self._metrics, saved["states"], strict=True):
            _restore_metric(metric, state)
        self.capture()

    def _results(self) -> dict[str, Any]:
        loop = getattr(getattr(self._trainer, "fit_loop", None), "epoch_loop", None)
        results = getattr(loop, "_results", None)
        return results if isinstance(results, dict) else {}


def _capture_metric(metric: Metric) -> dict[str, Any] | None:
    """State of one torchmetric; None if it has not been updated since its reset (most validation metrics)."""
    if metric._update_count == 0:
        return None
    values = {name: _copy_state(getattr(metric, name)) for name in metric._defaults}
    return {"values": values, "_update_count": metric._update_count, "_forward_cache": metric._forward_cache}


def _restore_metric(metric: Metric, state: dict[str, Any] | None) -> None:
    if state is None:
        if metric._update_count:
            metric.reset()
        return
    for name, value in state["values"].items():
        setattr(metric, name, _copy_state(value))
    metric._update_count = state["_update_count"]
    metric._forward_cache = state["_forward_cache"]
    metric._computed = None


def _copy_state(value: Tensor | list[Any]) -> Tensor | list[Any]:
    # A list state collects one tensor per update, which nobody changes afterwards: an epoch of them is not cloned.
    return list(value) if isinstance(value, list) else clone_tree(value)


def _detached(value: Any) -> Any:
    """Without the graphs that hang on list states: a snapshot outlives them, travels in checkpoints, and is copied."""
    if isinstance(value, dict):
        return {name: _detached(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_detached(item) for item in value]
    return value.detach() if isinstance(value, Tensor) else value


def _is_value(name: str, value: Any) -> bool:
    return isinstance(value, Tensor | bool | int) and not name.startswith("__")


def _finite(attributes: dict[str, Any]) -> bool:
    values = (item for value in attributes.values() for item in (value if isinstance(value, list) else [value]))
    tensors = (value for value in values if isinstance(value, Tensor) and value.is_floating_point())
    return all(bool(torch.isfinite(tensor).all()) for tensor in tensors)
