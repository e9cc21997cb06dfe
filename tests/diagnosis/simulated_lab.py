"""A laboratory over tiny numpy models that are really trained: causes are planted, and every control really runs.

A model is a function of (parameters, batch) that returns loss and gradients. Nothing in here knows about causes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from nan_callbacks.core.finding import Action, Finding, Severity
from nan_callbacks.core.observation import StepObservation
from nan_callbacks.diagnosis.batch_evidence import NamedArray, batch_parts
from nan_callbacks.diagnosis.evidence import Evidence, History, Role
from nan_callbacks.diagnosis.history import HistoryRecorder
from nan_callbacks.diagnosis.lab import Start, Trial, Variation
from nan_callbacks.diagnosis.origin import Origin, ReplayResult

Parameters = dict[str, np.ndarray]
Batch = tuple[np.ndarray, np.ndarray]
Model = Callable[[Parameters, Batch], tuple[float, Parameters]]
Initialise = Callable[[np.random.Generator], Parameters]


@dataclass
class Run:
    """A training run with plain gradient descent: the model, its data and its settings."""

    model: Model
    initialise: Initialise
    batches: Sequence[Batch]
    learning_rate: float
    dtype: str = "float32"
    fresh: Initialise | None = None
    """How a laboratory draws fresh weights; as the run does by default."""
    update: Callable[[Parameters, Parameters, float], Parameters] | None = None
    seed: int = 0


def descend(parameters: Parameters, gradients: Parameters, rate: float) -> Parameters:
    return {name: (value - value.dtype.type(rate) * gradients[name]) for name, value in parameters.items()}


def norm(arrays: Parameters) -> float:
    return float(np.sqrt(sum(float(np.sum(value.astype(np.float64) ** 2)) for value in arrays.values())))


def cast(arrays: Parameters, dtype: str) -> Parameters:
    return {name: value.astype(dtype) for name, value in arrays.items()}


@dataclass
class SimulatedLab:
    """An incident of a run, held still."""

    run_: Run
    present: Parameters
    snapshot: Parameters
    failed: Batch
    recent: list[Batch]
    step_seconds: float = 0.0
    nudged: Callable[[float], Model] | None = None
    """The model with the operands of its failing operation kept off their edge."""
    ran: list[Variation] = field(default_factory=list)

    @property
    def rows(self) -> int:
        return len(self.failed[0])

    @property
    def can_nudge(self) -> bool:
        return self.nudged is not None

    def replay(self) -> ReplayResult:
        return ReplayResult()

    def run(self, variation: Variation) -> Trial:
        self.ran.append(variation)
        parameters = cast(self._start(variation), variation.dtype or self.run_.dtype)
        losses, norms = [], []
        model = self.nudged(variation.nudge) if self.nudged and variation.nudge else self.run_.model
        for batch in self._batches(variation):
            try:
                loss, gradients = model(parameters, batch)
            except IndexError as error:
                return Trial(variation=variation, raised=f"IndexError: {error}")
            losses.append(float(loss))
            norms.append(norm(gradients))
            if variation.clip_norm is not None and norms[-1] > variation.clip_norm:
                gradients = {
                    name: value * value.dtype.type(variation.clip_norm / norms[-1]) for name, value in gradients.items()
                }
            if variation.steps:
                update = self.run_.update or descend
                parameters = update(parameters, gradients, self.run_.learning_rate * variation.lr_factor)
        finite = all(bool(np.isfinite(value).all()) for value in parameters.values())
        return Trial(variation=variation, losses=tuple(losses), grad_norms=tuple(norms), parameters_finite=finite)

    def _start(self, variation: Variation) -> Parameters:
        if variation.start is Start.FRESH:
            return (self.run_.fresh or self.run_.initialise)(np.random.default_rng(self.run_.seed + 1))
        return self.present if variation.start is Start.PRESENT else self.snapshot

    def _batches(self, variation: Variation) -> list[Batch]:
        last = self.recent[-1] if variation.other_batch else self._treated(variation)
        before = [self.recent[index % len(self.recent)] for index in range(max(0, variation.steps - 1))]
        after = self.recent[-1:] if variation.then_other else []
        return [self._scaled(batch, variation) for batch in (*before, last, *after)]

    def _treated(self, variation: Variation) -> Batch:
        inputs, targets = self.failed
        keep = [row for row in range(len(inputs)) if row not in variation.without_rows]
        if variation.only_rows is not None:
            keep = list(variation.only_rows)
        targets = targets[keep]
        if variation.clip_targets:
            past = np.concatenate([batch[1] for batch in self.recent])
            targets = np.clip(targets, past.min(), past.max())
        return inputs[keep], targets

    def _scaled(self, batch: Batch, variation: Variation) -> Batch:
        inputs, targets = batch
        dtype = variation.dtype or self.run_.dtype
        if variation.standardise:
            past = np.concatenate([other[0] for other in self.recent]).astype(np.float64)
            past = past.reshape(-1, past.shape[-1])
            inputs = (inputs - past.mean(axis=0)) / (past.std(axis=0) + 1e-12)
        if targets.dtype.kind == "f":
            targets = (targets * variation.target_scale).astype(dtype)
        return (inputs * variation.input_scale).astype(dtype), targets


@dataclass
class Accident:
    """What a run came to: its evidence and its laboratory."""

    evidence: Evidence
    lab: SimulatedLab

    def with_origin(self, **about: object) -> Accident:
        replayed = ReplayResult(origin=Origin(**about), reproduced=True)
        return Accident(replace(self.evidence, replay=replayed), self.lab)

    def at_rate(self, rate: float) -> Accident:
        """The same state, had the learning rate been raised just now."""
        lab = replace(self.lab, run_=replace(self.lab.run_, learning_rate=rate))
        return Accident(replace(self.evidence, seen=replace(self.evidence.seen, learning_rates=(rate,))), lab)

    def on_demand(self, *, skip_history: bool = False, **about: object) -> Accident:
        """Nothing failed; somebody asks."""
        history = History() if skip_history else self.evidence.history
        return Accident(replace(self.evidence, findings=(), history=history, **about), self.lab)

    def with_evidence(self, **about: object) -> Accident:
        return Accident(replace(self.evidence, **about), self.lab)


def train(run: Run, *, snapshot_every: int = 10, limit: float | None = None, code: str = "") -> Accident:
    """Train until the first non-finite step, or one whose loss is above the limit, or to the end of the data."""
    rng = np.random.default_rng(run.seed)
    parameters = cast(run.initialise(rng), run.dtype)
    snapshots, recorder, recent = [parameters], HistoryRecorder(), []
    for step, batch in enumerate(run.batches):
        before = parameters
        shaped = batch[0].astype(run.dtype), batch[1].astype(run.dtype) if batch[1].dtype.kind == "f" else batch[1]
        raised = False
        try:
            loss, gradients = run.model(parameters, shaped)
        except IndexError:
            loss, gradients, raised = float("nan"), parameters, True
        seen = StepObservation(
            step=step,
            loss=float(loss),
            grad_norm=norm(gradients),
            param_norm=norm(parameters) if step % 16 == 0 or step < 4 else None,
            learning_rates=(run.learning_rate,),
        )
        ok = seen.loss_is_finite and seen.grad_norm_is_finite and not raised
        if not ok or (limit is not None and loss > limit) or step == len(run.batches) - 1:
            break
        recorder.observe(seen)
        recent = [*recent, batch][-12:]
        parameters = (run.update or descend)(parameters, gradients, run.learning_rate)
        if not all(np.isfinite(value).all() for value in parameters.values()):
            seen = replace(seen, non_finite_parameters=1)
            break
        if (step + 1) % snapshot_every == 0:
            snapshots.append(parameters)
    # As the guard does: a snapshot is trusted only after it has survived some steps.
    trusted = snapshots[-2] if len(snapshots) > 1 else snapshots[0]
    code = code or ("" if ok else "NAN101")
    findings = (_finding(seen, code, limit),) if code else ()
    names = ("input", "target")
    past = [[NamedArray(name=n, values=v) for n, v in zip(names, other, strict=True)] for other in recent]
    parts = batch_parts(
        [NamedArray(name=n, values=v) for n, v in zip(names, batch, strict=True)], past, (Role.INPUT, Role.TARGET)
    )
    lab = SimulatedLab(run, before, trusted, batch, recent or [batch])
    evidence = Evidence(
        seen=seen,
        findings=findings,
        batch=parts,
        history=recorder.history(),
        framework="keras",
        precision=run.dtype,
        classifies=batch[1].dtype.kind in "iu",
    )
    return Accident(evidence, lab)


def _finding(seen: StepObservation, code: str, limit: float | None) -> Finding:
    quantity = {"GRAD201": "grad_norm", "LOSS401": "loss", "NAN101": "grad_norm"}.get(code, "loss level")
    return Finding.of(
        seen, code=code, title="as planted", severity=Severity.ERROR, action=Action.SKIP_STEP, quantity=quantity,
        limit=limit,
    )  # fmt: skip
