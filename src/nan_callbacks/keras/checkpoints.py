"""Files that other callbacks write and read: never with non-finite weights, and the guard's state beside a backup."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeGuard

from nan_callbacks.keras.call_stack import inside_fit

BACKUP_NAME = "latest.weights.h5"
"""The file that ``keras.callbacks.BackupAndRestore`` keeps in its folder and deletes with it."""

STATE_NAME = "nan_callbacks.json"
"""Our file beside it."""

STATE_VERSION = 1


class CheckpointHooks:
    """Looks over the model's ``save``, ``save_weights`` and ``load_weights`` while ``fit`` runs.

    Args:
        model: The model.
        before_save: Called before anything is written.
        state: Given the folder of a backup, returns the state to be written there, None for nothing.
    """

    def __init__(
        self, model: Any, *, before_save: Callable[[], None], state: Callable[[Path], dict[str, Any] | None]
    ) -> None:
        self._model = model
        self._before_save = before_save
        self._state = state
        self._loaded: tuple[Path, dict[str, Any]] | None = None

    def install(self) -> None:
        """Begin to look."""
        for name, hook in (
            ("save", self._saving("save")),
            ("save_weights", self._saving("save_weights")),
            ("load_weights", self._loading),
        ):
            vars(self._model)[name] = hook

    def uninstall(self) -> None:
        """Give the methods back."""
        for name in ("save", "save_weights", "load_weights"):
            vars(self._model).pop(name, None)

    def take_loaded(self) -> tuple[Path, dict[str, Any]] | None:
        """The folder of a backup loaded in this fit, and the state that was found there."""
        loaded, self._loaded = self._loaded, None
        return loaded

    def _saving(self, name: str) -> Callable[..., Any]:
        def save(*args: Any, **kwargs: Any) -> Any:
            original = getattr(type(self._model), name)
            if not inside_fit(self._model):  # a fit that broke off could not tell us
                return original(self._model, *args, **kwargs)
            self._before_save()
            result = original(self._model, *args, **kwargs)
            path = kwargs.get("filepath", args[0] if args else None)
            if _is_backup(path):
                self._write_state(Path(path).parent)
            return result

        return save

    def _write_state(self, folder: Path) -> None:
        state = self._state(folder)
        if state is None:
            return
        unfinished = folder / (STATE_NAME + ".part")
        unfinished.write_text(json.dumps({"version": STATE_VERSION, **state}), encoding="utf-8")
        os.replace(unfinished, folder / STATE_NAME)  # a killed run leaves the old file or the new one, never half of it

    def _loading(self, *args: Any, **kwargs: Any) -> Any:
        path = kwargs.get("filepath", args[0] if args else None)
        if _is_backup(path) and inside_fit(self._model):
            beside = Path(path).with_name(STATE_NAME)
            if beside.exists():
                state = json.loads(beside.read_text(encoding="utf-8"))
                self._loaded = (beside.parent, state) if state.get("version") == STATE_VERSION else None
        return type(self._model).load_weights(self._model, *args, **kwargs)


def _is_backup(path: Any) -> TypeGuard[str | os.PathLike[str]]:
    return path is not None and str(path).endswith(BACKUP_NAME)
