"""The Keras laboratory: variations of a failed step on stand-ins of the training state, on any backend."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import keras
import numpy as np
from keras import ops

from nan_callbacks.diagnosis.evidence import LayerEvidence, Role
from nan_callbacks.diagnosis.lab import Start, Trial, Variation
from nan_callbacks.diagnosis.origin import ReplayResult
from nan_callbacks.keras.lab_batch import Changes, cast_batch, own_tensors, select_rows
from nan_callbacks.keras.lab_hands import ModelRaised, Probe, Turns, Unsupported, Variances, first_built, make_hands
from nan_callbacks.keras.lab_layers import evidence_of
from nan_callbacks.keras.lab_start import begin_afresh, begin_with, course_of_rate
from nan_callbacks.keras.lab_state import computing_in
from nan_callbacks.keras.layer_probe import LayerProbe, forward
from nan_callbacks.keras.replay import replay as traced_replay
from nan_callbacks.keras.replay_batch import batch_rows

Look = TypeVar("Look")

DTYPES = ("float32", "float64")


@dataclass
class Outcome:
    """The numbers of a trial as they come."""

    losses: list[float] = field(default_factory=list)
    grad_norms: list[float] = field(default_factory=list)
    gradients: dict[str, float] = field(default_factory=dict)
    """Of the last step, by path of the variable."""
    parameters_finite: bool = True
    statistics_jump: float | None = None

    @property
    def is_broken(self) -> bool:
        """Whether a loss or a norm was non-finite."""
        return not all(map(math.isfinite, (*self.losses, *self.grad_norms)))


class KerasLab:
    """One incident, held still: implements :class:`nan_callbacks.diagnosis.lab.Lab`.

    The step is the model's own ``train_step`` with its optimizer, losses and metrics, without callbacks.

    Args:
        model: A compiled model, in the state before the failed step.
        failed: The batch of the failed step, as the step received it.
        recent: Batches of accepted steps, oldest first.
        state: JAX only: returns what ``fit`` hands around while the model's variables hold nothing; None outside.
        trusted: Returns the values of the last known-good snapshot by ``id`` of the variable; None without one.
        lr_scale: What the guard has the learning rate multiplied by.
    """

    def __init__(
        self,
        model: Any,
        failed: Any,
        recent: Sequence[Any] = (),
        *,
        state: Callable[[], Any] = lambda: None,
        trusted: Callable[[], Mapping[int, Any] | None] = lambda: None,
        lr_scale: float = 1.0,
    ) -> None:
        self.model = model
        self.failed_batch = failed = own_tensors(failed)
        self.recent_batches = list(recent)
        self._state, self._trusted, self._lr_scale = state, trusted, lr_scale
        with suppress(Exception):  # an error of the model is the result of every trial
            first_built(model, failed)
        self._hands = make_hands(model, state)
        self._changes = Changes(self.recent_batches, failed)
        self._known: dict[Variation, Trial] = {}
        self._gradients: dict[str, float] = {}
        self._step_seconds: float | None = None
        self._course: tuple[float, Callable[[int], float]] | None = None
        """The present learning rate, and what the state that a trial begins with makes of it: see :meth:`_kept`."""

    def on(self, batch: Any) -> KerasLab:
        """The same state with another batch in place of the failed one."""
        return KerasLab(self.model, batch, state=self._state, lr_scale=self._lr_scale)

    @property
    def rows(self) -> int:
        """Rows of the failed batch; 0 if it has no batch dimension."""
        return batch_rows(self.failed_batch) or 0

    @property
    def step_seconds(self) -> float:
        """About how long the failed step takes, without the time that compiling it takes the first time."""
        if self._step_seconds is None:
            first = self.run(Variation())
            self._step_seconds = min(first.seconds, self._timed(Variation()).seconds)
        return self._step_seconds

    def replay(self, budget_seconds: float | None = None, **options: Any) -> ReplayResult:
        """The failed step once more, traced.

        Args:
            budget_seconds: The tracer stops after this time; None: no limit.
            **options: Of the backend's replay.
        """
        settings = {"state": self._state(), "budget_seconds": budget_seconds, **options}
        with self._hands.held_still():  # for Python attributes, which the tracer does not put back
            return traced_replay(self.model, self.failed_batch, **settings)

    def held_still_for(self, look: Callable[[], Look]) -> Look:
        """Call a function while every change to the training state is a change to a copy.

        On JAX the variables of a model in training hold their values only here.
        """
        with self._hands.held_still():
            return look()

    def run(self, variation: Variation) -> Trial:
        """One trial; leaves nothing behind.

        The same variation is run once: every trial begins with the same state and the same random streams.
        """
        if variation not in self._known:
            self._known[variation] = self._timed(variation)
        return self._known[variation]

    def run_again(self, variation: Variation) -> Trial:
        """One trial, made anew: for those who watch what it calls."""
        return self._run(variation)

    def layers(self) -> tuple[LayerEvidence, ...]:
        """What the layers do with the failed batch; empty if the model cannot be called with its inputs."""
        self.run(Variation())
        probe = LayerProbe(self.model)
        inputs = keras.utils.unpack_x_y_sample_weight(self.failed_batch)[0]
        try:
            with self._hands.held_still():
                outputs = self._hands.outputs(probe, lambda: forward(self.model, inputs))
                return evidence_of(probe.by_layer(outputs), self._gradients)
        except (Unsupported, ModelRaised):
            return ()

    def look(self, probe: Probe, call: Callable[[], Any]) -> list[np.ndarray]:
        """What a probe sees during one call of the model, on copies of the state.

        Args:
            probe: Watches layers.
            call: Calls the model.

        Raises:
            ModelRaised: What the model's code raised.
            Unsupported: If the model cannot be called.
        """
        with self._hands.held_still():
            return self._hands.outputs(probe, call)

    @property
    def gradients(self) -> dict[str, float]:
        """Gradient norm of each variable at the failed step, by path."""
        self.run(Variation())
        return self._gradients

    # -- one trial -----------------------------------------------------------------------------------------------

    def _timed(self, variation: Variation) -> Trial:
        began = time.perf_counter()
        trial = self._run(variation)
        return replace(trial, seconds=time.perf_counter() - began)

    def _run(self, variation: Variation) -> Trial:
        outcome, raised = Outcome(), ""
        measured: tuple[float, ...] = ()
        try:
            batches, held_out = self._batches(variation)
            with self._held_still(variation):
                self._train(batches, variation, outcome)
                measured = self._measured(held_out, outcome)
        except Unsupported as reason:
            return Trial(variation=variation, supported=False, note=str(reason))
        except ModelRaised as error:
            cause = error.__cause__
            raised = f"{type(cause).__name__}: {cause}"
            if variation.dtype is not None and not self.run(replace(variation, dtype=None)).raised:
                return Trial(variation=variation, supported=False, note=f"it cannot run in {variation.dtype}: {raised}")
        if variation == Variation():
            self._gradients = outcome.gradients
        return Trial(
            variation=variation,
            losses=tuple(outcome.losses),
            grad_norms=tuple(outcome.grad_norms),
            held_out=measured,
            parameters_finite=outcome.parameters_finite,
            statistics_jump=outcome.statistics_jump,
            raised=raised,
        )

    @contextmanager
    def _held_still(self, variation: Variation) -> Iterator[None]:
        with self._hands.held_still():
            saved = self._trusted() if variation.start not in (Start.PRESENT, Start.FRESH) else None
            self._course = None
            if saved is not None:
                present = course_of_rate(self.model)(0)
                begin_with(self.model, saved, start=variation.start)
                self._course = (present, course_of_rate(self.model))
            if variation.start is Start.FRESH:
                begin_afresh(self.model)
            dtype = variation.dtype
            policy = nullcontext() if dtype is None else computing_in(self.model, dtype)
            with nullcontext() if dtype is None else self._hands.cast(dtype), policy:
                yield

    def _train(self, batches: list[Any], variation: Variation, outcome: Outcome) -> None:
        update = variation.steps > 0
        for index, batch in enumerate(batches):
            rate = self._lr_scale * self._kept(index) * variation.lr_factor
            turns = Turns(rate=rate, clip_norm=variation.clip_norm, update=update)
            variances = Variances.of(self.model)
            fed = batch if variation.dtype is None else cast_batch(batch, variation.dtype)
            numbers = self._hands.step(fed, turns)
            if numbers.loss is None and numbers.norms is None:
                raise Unsupported("neither the loss nor an optimizer of this training step can be seen from outside")
            if numbers.loss is not None:
                outcome.losses.append(numbers.loss)
            if numbers.grad_norm is not None:
                outcome.grad_norms.append(numbers.grad_norm)
            outcome.gradients = dict(numbers.norms or ())
            outcome.statistics_jump = variances.jump()
            if update and outcome.is_broken:
                break
        outcome.parameters_finite = all(_is_finite(variable) for variable in self.model.trainable_variables)

    def _measured(self, batches: list[Any], outcome: Outcome) -> tuple[float, ...]:
        """Losses of batches that are not trained on; none if the trial broke off."""
        if outcome.is_broken:
            return ()
        numbers = [self._hands.step(batch, Turns(update=False)) for batch in batches]
        return tuple(each.loss for each in numbers if each.loss is not None)

    def _kept(self, updates: int) -> float:
        """Factor that keeps the present learning rate, to which the run will come again, whatever the schedule was."""
        present, course = self._course or (0.0, lambda _: 0.0)
        then = course(updates)
        return present / then if present and then else 1.0

    # -- its batches ---------------------------------------------------------------------------------------------

    def _batches(self, variation: Variation) -> tuple[list[Any], list[Any]]:
        """What is trained on, in turn, and what is held out."""
        lined_up = variation.line_up(self._failed(variation), self.recent_batches)
        if lined_up is None:
            raise Unsupported("no recent batch was kept")
        used, held = lined_up
        self._check(variation)
        return [self._changed(batch, variation) for batch in used], held

    def _failed(self, variation: Variation) -> Any:
        if variation.only_rows is None and not variation.without_rows:
            return self.failed_batch
        rows = range(self.rows) if variation.only_rows is None else variation.only_rows
        if any(row >= self.rows for row in (*rows, *variation.without_rows)):
            raise Unsupported("the batch has no such row")
        kept = [row for row in rows if row not in set(variation.without_rows)]
        if not kept:
            raise Unsupported("no row of the batch would be left")
        return select_rows(self.failed_batch, kept, self.rows)

    def _check(self, variation: Variation) -> None:
        has = self._changes.has
        if (variation.standardise or variation.input_scale != 1.0) and not has(Role.INPUT, floating=True):
            raise Unsupported("the inputs of the batch are no floating point numbers")
        if variation.target_scale != 1.0 and not has(Role.TARGET, floating=True):
            raise Unsupported("the targets of the batch are no floating point numbers, or there are none")
        if variation.clip_targets and not (has(Role.TARGET, floating=False) and self._changes.has_recent):
            raise Unsupported("the batch has no targets, or no recent batch was kept to compare them with")
        if variation.dtype is not None and variation.dtype not in DTYPES:
            raise Unsupported(f"{variation.dtype} is not one of {', '.join(DTYPES)}")
        if variation.steps and self.model.optimizer is None:
            raise Unsupported("there is no optimizer")
        if variation.nudge is not None:
            raise Unsupported("operands cannot be changed inside the step")

    def _changed(self, batch: Any, variation: Variation) -> Any:
        changes = self._changes
        if variation.standardise:
            batch = changes.standardise(batch)
        if variation.reverse_time:
            batch = changes.reverse_time(batch)
        if variation.clip_targets:
            batch = changes.clip_targets(batch)
        if variation.input_scale != 1.0:
            batch = changes.scale(batch, Role.INPUT, variation.input_scale)
        if variation.target_scale != 1.0:
            batch = changes.scale(batch, Role.TARGET, variation.target_scale)
        return batch


def _is_finite(variable: Any) -> bool:
    if not keras.backend.is_float_dtype(variable._dtype):
        return True
    return bool(ops.convert_to_numpy(ops.all(ops.isfinite(variable.value))))
