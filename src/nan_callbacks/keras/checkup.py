"""The checkup of a Keras model: its first step, rows of its data, and a few virtual steps."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from nan_callbacks.checkup.facts import CheckupFacts, LossFacts
from nan_callbacks.checkup.notice import CheckupReport
from nan_callbacks.checkup.rules import judge
from nan_callbacks.core.sentences import shortened
from nan_callbacks.diagnosis.known_issues import Environment, installed_versions
from nan_callbacks.errors import ConfigurationError
from nan_callbacks.keras.checkup_facts import components_of, inputs_of, layers_of, rows_of_parts
from nan_callbacks.keras.checkup_probe import passages_of
from nan_callbacks.keras.checkup_trials import GuardedTrials, LabTrials, Trials, rate_of
from nan_callbacks.keras.entropy_calls import own_entropies
from nan_callbacks.keras.evidence import narrowest
from nan_callbacks.keras.hazard_scan import hazards_of
from nan_callbacks.keras.lab import KerasLab
from nan_callbacks.keras.loss_facts import losses_of
from nan_callbacks.keras.model_parts import obstacle_of
from nan_callbacks.keras.own_losses import without_harmless_shapes

MOST_ROWS = 4096
MOST_BATCHES = 64
SCAN_SECONDS = 20.0
"""Time for the traced step: JAX compiles every kind of operation the first time."""


def checkup(
    model: Any,
    data: Any,
    *,
    batch_size: int = 32,
    ignore: Collection[str] = (),
    strict: bool = False,
) -> CheckupReport:
    """Look a compiled Keras model and its data over before the first step. Nothing is changed.

    A model or an optimizer that has not been built is built from the first batch; that is not undone.

    Args:
        model: A compiled model.
        data: ``(x, y)`` or ``(x, y, sample_weight)`` arrays, a ``PyDataset``, a ``tf.data.Dataset``, or a list of
            batches. Datasets are iterated from their beginning; one that shuffles anew at each iteration has been
            iterated once more than without. Generators, which can be read only once, are refused.
        batch_size: Rows of a batch of arrays.
        ignore: Codes of the catalogue that are not to be told, such as ``["DATA502"]``.
        strict: Whether an error of the checkup itself is raised rather than noted in the report.

    Returns:
        The notices, the gravest first.

    Raises:
        ConfigurationError: If the model is not compiled, or the data cannot be read.
    """
    if not getattr(model, "compiled", False):
        raise ConfigurationError.of(
            "model", "a compiled Keras model", "one that is not compiled", "Call `model.compile(...)` first."
        )
    first, rows, numbers = read(data, batch_size)
    return examine(KerasLab(model, first), rows, numbers, ignore=ignore, strict=strict)


def look_over_fit(
    session: Any, arrays: tuple[Any, ...] | None, ignore: Collection[str], *, strict: bool = False
) -> CheckupReport:
    """Look over a fit that is about to make its first step.

    Args:
        session: The guard's session.
        arrays: What ``fit`` was called with, if those were arrays.
        ignore: Codes that are not to be told.
        strict: Whether an error of the checkup itself is raised rather than noted in the report.
    """
    obstacle = obstacle_of(session.model)
    if obstacle:
        return CheckupReport(notes=(f"not looked over: {obstacle}",))
    batch, backend = session.batches[0], session.backend
    lab = KerasLab(session.model, batch, state=lambda: getattr(backend, "live", None))
    trials = GuardedTrials(backend, batch, session.monitor.lr_scale) if backend.can_try else None
    rows, numbers = (rows_of_parts([batch]), None) if arrays is None else _of_arrays(tuple(arrays), 1)[1:]
    strategy = type(keras.distribution.distribution()).__name__
    on_jax = keras.backend.backend() == "jax"
    # On JAX the traced step compiles every kind of operation, which takes longer than many a training.
    return examine(
        lab,
        rows,
        numbers,
        trials=trials,
        ignore=ignore,
        components={strategy},
        resumed=session.monitor.step > 0,
        scan=not on_jax,
        strict=strict,
    )


def examine(
    lab: KerasLab,
    rows: dict[str, np.ndarray],
    numbers: np.ndarray | None = None,
    *,
    trials: Trials | None = None,
    ignore: Collection[str] = (),
    components: Collection[str] = (),
    resumed: bool = False,
    scan: bool = True,
    strict: bool = False,
) -> CheckupReport:
    """Look the first step of a run over.

    Args:
        lab: The first step, held still.
        rows: Parts of batches over all rows that were read, by name.
        numbers: What the data count these rows as; None: as they were read.
        trials: Where steps are tried; None: in the laboratory.
        ignore: Codes that are not to be told.
        components: What the run uses besides its model, for known issues.
        resumed: Whether the weights come from a checkpoint.
        scan: Whether to trace the step for hazards.
        strict: Whether an error of the checkup itself is raised rather than noted in the report.
    """
    began = time.perf_counter()
    model, batch = lab.model, lab.failed_batch
    passages = passages_of(lab)
    notes = [f"the model cannot be called: {shortened(passages.raised)}"] if passages.raised else []
    parts = _Parts(notes, strict)
    trials = trials or LabTrials(lab)
    if trials.raised:
        notes.append(f"the first step raises an error: {shortened(trials.raised)}")
    can_run, gradients = not trials.raised, trials.gradients
    sound = all(map(math.isfinite, gradients.values()))
    inputs, losses, layers = lab.held_still_for(
        lambda: (
            inputs_of(model, batch, passages, rows),
            losses_of(model, batch, passages, rows),
            layers_of(passages, gradients),
        )
    )
    facts = CheckupFacts(
        framework="keras",
        inputs=inputs,
        losses=parts.tried("losses", lambda: _all_losses(lab, losses, rows, scan=scan)) or (),
        layers=layers,
        rate=parts.tried("the learning rate", lambda: rate_of(model, trials, lab.held_still_for))
        if can_run and not resumed
        else None,
        hazards=parts.tried("hazards", lambda: hazards_of(lab, SCAN_SECONDS, sound=sound)) or ()
        if scan and can_run
        else (),
        environment=Environment(
            versions=installed_versions(),
            devices=_devices(),
            precision=narrowest(list(model._flatten_layers(include_self=True, recursive=True))),
            components=frozenset(components_of(model) | set(components)),
            backend=keras.backend.backend(),
        ),
        rows_read=max((len(array) for array in rows.values()), default=0),
        row_numbers=numbers,
        sound=can_run and bool(gradients) and sound,
        resumed=resumed,
        notes=tuple(notes),
    )
    report = judge(facts, ignore)
    return CheckupReport(report.notices, tuple(notes), time.perf_counter() - began)


class _Parts:
    """Parts of the checkup that may fail without the rest."""

    def __init__(self, notes: list[str], strict: bool) -> None:
        self._notes, self._strict = notes, strict

    def tried(self, what: str, look: Callable[[], Any]) -> Any:
        try:
            return look()
        except Exception as error:
            if self._strict:
                raise
            self._notes.append(f"{what}: not looked at, {shortened(f'{type(error).__name__}: {error}')}")
            return None


def _all_losses(
    lab: KerasLab, losses: tuple[LossFacts, ...], rows: dict[str, np.ndarray], *, scan: bool
) -> tuple[LossFacts, ...]:
    """What the compiled model tells of, and what the user's own code calls if the step may be run once more."""
    return (*without_harmless_shapes(lab, losses), *(own_entropies(lab, losses, rows) if scan else ()))


def _devices() -> tuple[str, ...]:
    try:
        names = [str(device) for device in keras.distribution.list_devices()]
    except Exception:  # not every backend can tell
        return ("cpu",)
    kinds = {name.partition(":")[0].lower() for name in names}
    return tuple("cuda" if kind == "gpu" else kind for kind in sorted(kinds)) or ("cpu",)


# -- data ------------------------------------------------------------------------------------------------------------


def read(data: Any, batch_size: int) -> tuple[Any, dict[str, np.ndarray], np.ndarray | None]:
    """The first batch, the rows of a few, and what the data count these as if they were not read one by one.

    Raises:
        ConfigurationError: If the data cannot be read.
    """
    if isinstance(data, tuple):
        return _of_arrays(data, batch_size)
    batches = list(_batches(data))
    if not batches:
        raise ConfigurationError.of(
            "data", "(x, y) arrays, a PyDataset, a tf.data.Dataset or a list of batches", type(data).__name__,
            "A generator can be read only once: pass a list of its first batches.",
        )  # fmt: skip
    return keras.tree.map_structure(_as_tensor, batches[0]), rows_of_parts(batches), None


def _of_arrays(data: tuple[Any, ...], batch_size: int) -> tuple[Any, dict[str, np.ndarray], np.ndarray]:
    lengths = [len(part) for part in keras.tree.flatten(data) if part is not None]
    if not lengths or min(lengths) == 0:
        raise ConfigurationError.of("data", "arrays with at least one row", data, "There is nothing to look at.")
    count = min(lengths)
    # The first batch of shuffled data: rows at an even stride, so that data sorted by class show all of them.
    chosen = np.unique(np.linspace(0, count - 1, min(batch_size, count)).astype(int))
    first = keras.tree.map_structure(lambda part: None if part is None else _fed(np.asarray(part)[chosen]), data)
    stride = math.ceil(count / MOST_ROWS)
    some = keras.tree.map_structure(lambda part: None if part is None else np.asarray(part)[::stride], data)
    return first, rows_of_parts([some]), np.arange(0, count, stride)


def _fed(array: np.ndarray) -> Any:
    """As ``fit`` feeds arrays: float64 becomes the default float type."""
    return _as_tensor(array.astype(keras.config.floatx()) if array.dtype == np.float64 else array)


def _as_tensor(part: Any) -> Any:
    """A part of a batch as a step receives it in ``fit``; what is no array of numbers as it is."""
    is_numeric = isinstance(part, np.ndarray) and part.dtype.kind in "fiub"
    return ops.convert_to_tensor(part) if is_numeric else part


def _batches(data: Any) -> Iterator[Any]:
    if isinstance(data, keras.utils.PyDataset):
        for index in range(min(MOST_BATCHES, len(data))):
            yield data[index]
        return
    if not isinstance(data, Sequence) and not hasattr(data, "element_spec"):
        return
    for batch in itertools.islice(data, MOST_BATCHES):
        yield tuple(batch) if isinstance(batch, list) else batch
