"""The torch laboratory: variations of a failed step on stand-ins of the training state."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from nan_callbacks.diagnosis.evidence import LayerEvidence, Role
from nan_callbacks.diagnosis.lab import Start, Trial, Variation
from nan_callbacks.diagnosis.origin import ReplayResult
from nan_callbacks.torch.activations import ActivationProbe
from nan_callbacks.torch.gate import optimizer_parameters
from nan_callbacks.torch.lab_batch import Changes, cast_batch, map_tensors
from nan_callbacks.torch.lab_bench import Bench, Fed, Window
from nan_callbacks.torch.lab_hands import ModelRaised, Outcome, StandInHands, Unsupported, models_fault
from nan_callbacks.torch.lab_start import Widened, begin_afresh, begin_with_snapshot, cast_state
from nan_callbacks.torch.lab_state import stand_ins
from nan_callbacks.torch.measure import non_finite_tensors
from nan_callbacks.torch.replay import batch_size, select_rows
from nan_callbacks.torch.replay import replay as traced_replay
from nan_callbacks.torch.running_variances import RunningVariances

Look = TypeVar("Look")

DTYPES = {"float32": torch.float32, "float64": torch.float64}


class TorchLab:
    """One incident, held still: implements :class:`nan_callbacks.diagnosis.lab.Lab` for anything that torch computes.

    Args:
        bench: The incident.
    """

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self._changes = Changes(self.recent_batches, bench.failed[0].batch)
        self._known: dict[Variation, Trial] = {}
        self._suspect: int | None = None
        self.trains_nothing = False
        """Whether no update reaches any parameter; known once the layers have been looked at."""

    @property
    def suspect(self) -> int:
        """Which batch of the failed window is to blame.

        The first with a non-finite result, else the one with the largest gradient. Of several, each is run once.
        """
        if self._suspect is None:
            self._suspect = 0 if len(self.bench.failed) == 1 else self._find_suspect()
        return self._suspect

    @property
    def failed_batch(self) -> Any:
        """The batch that is to blame."""
        return self.bench.failed[self.suspect].batch

    @property
    def recent_batches(self) -> list[Any]:
        """The batches of recent accepted steps, oldest first."""
        return [fed.batch for window in self.bench.recent for fed in window]

    @property
    def rows(self) -> int:
        """Rows of the batch that is to blame; 0 if it has no batch dimension."""
        return batch_size(self.failed_batch)

    @property
    def step_seconds(self) -> float:
        """About how long the failed step takes, forward and backward, measured once."""
        return self.run(Variation()).seconds

    def replay(self, budget_seconds: float | None = None) -> ReplayResult:
        """The failed step once more, traced.

        Args:
            budget_seconds: The tracer stops after this time; None: no limit.
        """
        bench, fed = self.bench, as_new(self.bench.failed[self.suspect])
        scale = bench.loss_scale
        if bench.by_hand is not None and not bench.may_call_backward:
            return ReplayResult(note="a step by hand cannot be replayed on one process of several")

        base = self.run(Variation())
        if not base.supported:
            return ReplayResult(note=base.note)

        def step() -> Tensor | None:
            if bench.by_hand is not None:
                bench.by_hand(fed, StandInHands(bench, Outcome(), traced=True))
                return None
            loss = bench.loss_of(fed)
            return loss if loss is None or scale == 1.0 else loss * scale

        with self._held_still(Variation()):
            result = traced_replay(
                step,
                modules={"": bench.module},
                parameters={n: p for n, p in bench.module.named_parameters() if p.requires_grad},
                batch=fed.batch,
                budget_seconds=budget_seconds,
                whole_step=bench.by_hand is not None,
            )
        if scale == 1.0:
            return result
        loss, norm = result.loss, result.grad_norm
        return replace(
            result, loss=None if loss is None else loss / scale, grad_norm=None if norm is None else norm / scale
        )

    def run(self, variation: Variation) -> Trial:
        """One trial; leaves nothing behind.

        The same variation is run once: every trial begins with the same state and the same random streams.
        """
        if variation not in self._known:
            began = time.perf_counter()
            trial = self._run(variation)
            self._known[variation] = replace(trial, seconds=time.perf_counter() - began)
        return self._known[variation]

    def layers(self) -> tuple[LayerEvidence, ...]:
        """What the layers do with the batch that is to blame; empty if the step cannot be run."""
        window, probe = (self.bench.failed[self.suspect],), ActivationProbe(self.bench.module)
        try:
            with self._held_still(Variation()):
                # The first forward pass is what counts; a step that raises has shown some layers all the same.
                with suppress(ModelRaised), probe:
                    self._step(window, Variation(), Outcome(), update=False)
                    self.trains_nothing = self._is_idle()
                return probe.evidence(self._updated())
        except (Unsupported, torch.OutOfMemoryError):
            return ()

    def _updated(self) -> set[int] | None:
        """Parameters that optimizers hold, by ``id``; None of a step by hand, which may share them out."""
        bench = self.bench
        if bench.by_hand is not None or not bench.optimizers:
            return None
        return {id(each) for optimizer in bench.optimizers for each in optimizer_parameters(optimizer)}

    def _is_idle(self) -> bool:
        """Whether optimizers hold no parameter of the module that has a gradient now."""
        updated = self._updated()
        parameters = self.bench.module.parameters()
        return updated is not None and not any(id(p) in updated and p.grad is not None for p in parameters)

    def once(self, look: Callable[[Fed], Look], fed: Fed | None = None) -> Look:
        """Have a look at a batch, on copies of the state.

        Args:
            look: Gets the batch, in containers and tensors of its own.
            fed: The batch; None: the one that is to blame.
        """
        fed = self.bench.failed[self.suspect] if fed is None else fed
        with self._held_still(Variation()):
            return look(as_new(fed))

    def learn_uses(self, targets: Collection[str], picking: Collection[str] = ()) -> None:
        """Parts of the batch that the step was seen to treat as targets, which trials may change, or to pick by."""
        self._changes.learn(targets, picking)

    # -- one trial -----------------------------------------------------------------------------------------------

    def _run(self, variation: Variation) -> Trial:
        outcome, raised = Outcome(), ""
        measured: tuple[float, ...] = ()
        try:
            windows, held_out = self._windows(variation)
            with self._held_still(variation):
                self._train(windows, variation, outcome)
                measured = self._measured(held_out, variation, outcome)
        except Unsupported as reason:
            return Trial(variation=variation, supported=False, note=str(reason))
        except torch.OutOfMemoryError:
            return Trial(variation=variation, supported=False, note="not enough memory on the device")
        except ModelRaised as error:
            cause = error.__cause__
            raised = f"{type(cause).__name__}: {cause}"
            if variation.dtype is not None and not self.run(replace(variation, dtype=None)).raised:
                return Trial(variation=variation, supported=False, note=f"it cannot run in {variation.dtype}: {raised}")
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
        bench = self.bench
        with (
            bench.surroundings(),
            stand_ins(bench.module, bench.optimizers, bench.objects),
            bench.inside(),
            torch.enable_grad(),
        ):
            if bench.random_streams is not None:
                bench.random_streams.restore()
            self._begin(variation)
            if variation.dtype is not None:
                dtype = DTYPES[variation.dtype]
                cast_state(dtype, bench.module, bench.optimizers)
                with _default_dtype(dtype), Widened(dtype):
                    yield
            else:
                with bench.precision():
                    yield

    def _begin(self, variation: Variation) -> None:
        bench = self.bench
        if variation.start is Start.FRESH:
            begin_afresh(bench.module, bench.optimizers)
        saved = bench.trusted() if variation.start not in (Start.PRESENT, Start.FRESH) else None
        if saved is not None:
            begin_with_snapshot(saved, bench.module, bench.optimizers, start=variation.start)
        if variation.lr_factor != 1.0:
            for optimizer in bench.optimizers:
                for group in optimizer.param_groups:
                    if group.get("lr") is not None:
                        group["lr"] = group["lr"] * variation.lr_factor

    def _train(self, windows: list[Window], variation: Variation, outcome: Outcome) -> None:
        module = self.bench.module
        variances = RunningVariances(module)
        update = variation.steps > 0
        for window in windows:
            before = len(outcome.losses)
            variances.forget_jump()
            self._step(window, variation, outcome, update=update)
            jump = variances.jump()
            outcome.statistics_jump = None if jump is None else float(jump)
            if before == len(outcome.losses) and not outcome.grad_norms:
                raise Unsupported("the training step returns no loss for this batch")
            if update and outcome.is_broken:
                break
        named = [(n, p) for n, p in module.named_parameters() if p.is_floating_point() or p.is_complex()]
        outcome.parameters_finite = not non_finite_tensors([n for n, _ in named], [p for _, p in named])

    def _measured(self, windows: list[Window], variation: Variation, outcome: Outcome) -> tuple[float, ...]:
        """Losses of windows that are not trained on; none if the trial broke off."""
        if outcome.is_broken:
            return ()
        seen = Outcome()
        for window in windows:
            self._step(window, variation, seen, update=False)
        return tuple(seen.losses)

    def _step(self, window: Window, variation: Variation, outcome: Outcome, *, update: bool) -> None:
        bench = self.bench
        hands = StandInHands(bench, outcome, update=update, clip_norm=variation.clip_norm)
        for optimizer in bench.optimizers:
            optimizer.zero_grad(set_to_none=True)
        with models_fault():
            if bench.by_hand is not None:
                for fed in window:
                    bench.by_hand(as_new(fed), hands)
                hands.end_of_step()
                return
            loss = self._differentiate(window, hands)
        if loss is not None:
            outcome.losses.append(loss)
            # One optimizer at most steps by itself; without any, only gradients are asked for.
            hands.finish(bench.optimizers[0] if bench.optimizers else None, lambda: self._again(window, hands))

    def _differentiate(self, window: Window, hands: StandInHands) -> float | None:
        """Gradients of a window; its mean raw loss, None if there is none."""
        losses = []
        for fed in window:
            loss = self.bench.loss_of(as_new(fed))
            if loss is None:
                continue
            factor = self.bench.loss_scale / len(window)
            try:
                hands.differentiate(loss * factor)
            except RuntimeError as error:
                if "checkpoint" not in str(error).lower() or not self.bench.may_call_backward:
                    raise
                loss = self.bench.loss_of(
                    as_new(fed)
                )  # reentrant checkpointing wants to be differentiated the plain way
                assert loss is not None
                (loss * factor).backward()
            losses.append(float(loss.detach()))
        return sum(losses) / len(losses) if losses else None

    def _again(self, window: Window, hands: StandInHands) -> Tensor:
        """The closure of an optimizer that evaluates several times a step."""
        for optimizer in self.bench.optimizers:
            optimizer.zero_grad(set_to_none=True)
        loss = self._differentiate(window, hands)
        hands.unscale()
        return torch.tensor(math.nan if loss is None else loss)

    # -- its batches ---------------------------------------------------------------------------------------------

    def _windows(self, variation: Variation) -> tuple[list[Window], list[Window]]:
        """What is trained on, in turn, and what is held out."""
        lined_up = variation.line_up(self._failed_window(variation), self.bench.recent)
        if lined_up is None:
            raise Unsupported("no recent batch was kept")
        used, held = lined_up
        self._check(variation)
        return [self._changed(window, variation) for window in used], held

    def _failed_window(self, variation: Variation) -> Window:
        if variation.only_rows is None and not variation.without_rows:
            return self.bench.failed
        rows = range(self.rows) if variation.only_rows is None else variation.only_rows
        if any(row >= self.rows for row in (*rows, *variation.without_rows)):
            raise Unsupported("the batch has no such row")
        kept = [row for row in rows if row not in set(variation.without_rows)]
        window = list(self.bench.failed)
        guilty = window.pop(self.suspect)
        if kept:
            window.insert(self.suspect, Fed(select_rows(guilty.batch, kept), guilty.index))
        if not window:
            raise Unsupported("no row of the batch would be left")
        return tuple(window)

    def _check(self, variation: Variation) -> None:
        has = self._changes.has
        if (variation.standardise or variation.input_scale != 1.0) and not has(Role.INPUT, floating=True):
            raise Unsupported("no floating point input was recognised in the batch")
        if variation.target_scale != 1.0 and not has(Role.TARGET, floating=True):
            raise Unsupported("no floating point target was recognised in the batch")
        if variation.clip_targets and not (has(Role.TARGET, floating=False) and self._changes.has_recent):
            raise Unsupported("no target was recognised in the batch, or no recent batch was kept to compare it with")
        if variation.dtype is not None and variation.dtype not in DTYPES:
            raise Unsupported(f"{variation.dtype} is not one of {', '.join(DTYPES)}")
        if variation.steps and not self.bench.optimizers:
            raise Unsupported("there is no optimizer")
        if variation.nudge is not None:
            raise Unsupported("operands cannot be changed inside the step")

    def _changed(self, window: Window, variation: Variation) -> Window:
        return tuple(Fed(self._changed_batch(fed.batch, variation), fed.index) for fed in window)

    def _changed_batch(self, batch: Any, variation: Variation) -> Any:
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
        return batch if variation.dtype is None else cast_batch(batch, DTYPES[variation.dtype])

    def _find_suspect(self) -> int:
        norms = []
        for index, fed in enumerate(self.bench.failed):
            outcome = Outcome()
            try:
                with self._held_still(Variation()):
                    self._step((fed,), Variation(), outcome, update=False)
            except (ModelRaised, torch.OutOfMemoryError):
                return index
            if outcome.is_broken:
                return index
            norms.append(max(outcome.grad_norms, default=0.0))
        return norms.index(max(norms))


@contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def as_new(fed: Fed) -> Fed:
    """A batch in containers and tensors of its own: steps like to take theirs apart, or to write into them."""
    return Fed(map_tensors(fed.batch, lambda name, tensor: tensor.clone()), fed.index)
