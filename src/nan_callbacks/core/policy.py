"""The escalation ladder: skip the step, roll back and cut the learning rate, stop. With a budget at every rung."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

from nan_callbacks.core.config import GuardConfig
from nan_callbacks.core.decision import Decision
from nan_callbacks.core.finding import Action, Finding
from nan_callbacks.core.learning_rate import LearningRateScale
from nan_callbacks.core.ledger import Ledger, LedgerEntry
from nan_callbacks.core.limits import Limits
from nan_callbacks.core.observation import StepObservation
from nan_callbacks.core.statistics import median

BUDGET_STEPS = 100
"""Attempted steps over which the share of dropped ones is judged."""
BUDGET_MIN_STEPS = 20
"""Attempted steps below which a share means nothing."""
PROGRESS_STEPS = 200
"""Applied steps after a rollback that count as progress: two snapshots have been taken and trusted meanwhile at the
default cadence, so a further rollback goes to a newer state."""

CHANCE_OF_A_RUN = 1e-4
"""Probability below which a run of dropped steps is not put down to chance: once in 10 000 steps."""
LONGEST_RUN = 20
"""Dropped steps in a row after which the state is suspected however many were dropped before."""

AFTERWARDS = 8
"""Applied steps after a rollback that are compared with what led to it."""
AS_LARGE = 0.5
"""Share of the smallest dropped value from which steps from a known-good state are as large: a spike is ten times the
usual at least, so that steps at the usual level come to a tenth."""
WELL_ABOVE = 0.3
"""Share of the limit at that state from which they are well above what was usual there: three times the median at
least. An early state has large losses of its own."""

AT_ONCE = 96
"""Applied steps after a relapse was taken back within which the next one has come at once: three looks until the level
of 32 steps is that of the restored weights, and three in which it is seen."""

SPIKES = frozenset({"GRAD201", "LOSS401", "ACT301"})
"""Findings about finite values: harder data can cause them as well as a broken state."""


@dataclass
class Run:
    """Dropped steps in a row."""

    length: int = 0
    only_spikes: bool = True
    """Whether all of them were finite."""
    least: dict[str, float] = field(default_factory=dict)
    """Smallest value of each quantity that was a spike."""
    cleared: bool = False
    """Whether trials have shown that the batches are at fault, and not the weights."""

    def add(self, findings: list[Finding]) -> None:
        """One more."""
        self.length += 1
        self.only_spikes &= all(finding.code in SPIKES for finding in findings)
        for finding in findings:
            if finding.code in SPIKES and finding.value is not None and math.isfinite(finding.value):
                self.least[finding.quantity] = min(finding.value, self.least.get(finding.quantity, math.inf))


class Policy:
    """Turns findings and history into one decision per step.

    A dropped step leaves the state as it was, so what matters is whether the *state* or the *data* is at fault:

    - A batch that holds NaN or Inf itself is the data's fault: it is skipped and never leads to a rollback.
    - ``max_consecutive_skips`` other drops in a row make the state suspect: rollback and a cut of the learning rate.
    - If finite spikes go on at once from the restored, known-good state, or if the steps that follow are about as
      large as the spikes were, the state was not at fault: the data have changed. The new level is accepted and the cut
      undone.
    """

    def __init__(self, config: GuardConfig, ledger: Ledger) -> None:
        self.config = config
        self.ledger = ledger
        self.learning_rate = LearningRateScale(config.lr_factor, config.lr_recovery_steps)
        self._recent_drops: deque[bool] = deque(maxlen=BUDGET_STEPS)
        self._weathered: deque[bool] = deque(maxlen=BUDGET_STEPS)
        """Steps, dropped or not, up to the last applied one; without runs that ended in a rollback."""
        self._runs: dict[int, Run] = {}
        """The present run of dropped steps of each optimizer: one may fail for good while another goes on."""
        self._rollbacks = 0
        self._applied_since_rollback = 0
        self.spiking: int | None = None
        """The optimizer whose spikes led to the last rollback, as long as its steps since are compared with them."""
        self._spikes: dict[str, float] = {}
        """The smallest value of each quantity that was a spike; from :meth:`restored` on, what is as large."""
        self._afterwards: dict[str, list[float]] = {}
        """The same quantities in the applied steps since."""
        self._scale_before = 1.0
        """The learning rate's scale before that rollback."""
        self.restored_to: LedgerEntry | None = None
        """The snapshot of the last rollback, for the detectors to go back to as well."""
        self._taken_back = False
        """Whether the last rollback was one of a relapse."""
        self._known_good = False
        """Whether there was a rollback, and the last one went to a trusted snapshot."""
        self.suspected: tuple[Finding, ...] = ()
        """What the last step has shown, if trials must say first whether the weights are at fault: :meth:`judged`."""
        self.gave_up = False

    def decide(self, seen: StepObservation, findings: list[Finding], *, suspicious: bool = False) -> Decision:
        """Decide about one observed step.

        Args:
            seen: The step.
            findings: What the detectors found in it, the gravest first.
            suspicious: True while a detector suspects the present state; such a step is no proof of a snapshot.
        """
        proposed = max([finding.action for finding in findings]) if findings else Action.OBSERVE
        self._recent_drops.append(not seen.applied and bool(findings))
        self.suspected = ()
        if self.gave_up:  # and nothing passes any more, until the trainer has stopped: that is no further incident
            return self._decision(Action.OBSERVE, [], "")
        if proposed is Action.STOP:
            broken = any(finding.code == "NAN103" for finding in findings)
            return self._give_up(findings, f"{findings[0].title}: configured to stop", restore=broken)
        if proposed is Action.ROLLBACK and findings[0].level_before is not None:
            self.suspected = tuple(findings)
            return self._applied(seen, [], suspicious=True)
        if proposed is Action.ROLLBACK:
            at_once = self._rollbacks == 0 and any(finding.code == "NAN103" for finding in findings)
            return self._roll_back(findings, findings[0].title, to=self.ledger.newest() if at_once else None)
        if seen.applied:
            return self._applied(seen, findings, suspicious=suspicious)
        return self._dropped(seen, findings) if findings else self._decision(Action.OBSERVE, findings, "")

    def relapsed(self, finding: Finding, proof: LedgerEntry) -> Decision:
        """Decide about weights that have proved to know less than those of a snapshot.

        If the level comes back at once from the snapshot, the weights are made worse on purpose (pruned, projected), or
        the trial was not what the run is: then it is the new normal, and the cut is undone.

        Args:
            finding: What was found.
            proof: The snapshot.
        """
        if self.gave_up:
            return self._decision(Action.OBSERVE, [], "")
        if self._taken_back and self._applied_since_rollback <= AT_ONCE:
            self._taken_back = False
            return self._accept_level(Action.OBSERVE, [])
        if finding.action is Action.ROLLBACK:
            decision = self._roll_back([finding], finding.title, to=proof)
            self._taken_back = decision.action is Action.ROLLBACK
            return decision
        if finding.action is Action.STOP:
            return self._give_up([finding], f"{finding.title}: configured to stop", restore=True)
        return self._decision(Action.OBSERVE, [finding], "")

    def deepen(self, decision: Decision, cut: float) -> Decision:
        """Cut the learning rate further than it was decided.

        Args:
            decision: A decision that cuts it.
            cut: The factor of the cut.
        """
        assert decision.lr_cut is not None
        self.learning_rate.deepen(cut / decision.lr_cut)
        return replace(decision, lr_cut=cut, lr_scale=self.learning_rate.scale, lr_cut_tried=True)

    def _applied(self, seen: StepObservation, findings: list[Finding], *, suspicious: bool) -> Decision:
        run = self._runs.pop(seen.stream, None)
        if run is not None:
            self._weathered.extend([True] * run.length)
        self._weathered.append(False)
        self._applied_since_rollback += 1
        if self._applied_since_rollback == PROGRESS_STEPS:
            self._rollbacks = 0
            self.learning_rate.confirm()
        recovered = self.learning_rate.clean_step()
        if findings and any(finding.code == "NAN102" and finding.standing for finding in findings):
            self.learning_rate.undo()  # rollbacks did not help: the loss value is broken and not the training
        if not findings and not suspicious:
            self.ledger.clean_step()
        if seen.stream == self.spiking and self._known_good and self._is_as_large(seen):
            self.learning_rate.take_back(self._scale_before)
            return self._data_have_changed(Action.OBSERVE, findings)
        return self._decision(Action.OBSERVE, findings, "", lr_recovered=recovered)

    def restored(self, limits: Limits) -> None:
        """The detectors of the optimizer :attr:`spiking` are back at a known-good state.

        Args:
            limits: Those that hold there.
        """
        there = {"loss": limits.max_loss, "grad_norm": limits.max_grad_norm}
        self._spikes = {
            name: max(AS_LARGE * value, WELL_ABOVE * there[name])
            for name, value in self._spikes.items()
            if name in there and math.isfinite(there[name])
        }

    def _is_as_large(self, seen: StepObservation) -> bool:
        """Whether the steps from the known-good state turn out to be about as large as those that led back to it."""
        for quantity, value in (("loss", seen.loss), ("grad_norm", seen.grad_norm)):
            if quantity in self._spikes and value is not None and math.isfinite(value):
                self._afterwards.setdefault(quantity, []).append(value)
        known = max(map(len, self._afterwards.values()), default=0)
        if known < AFTERWARDS and self._spikes:
            return False
        self.spiking = None
        return any(median(values) >= self._spikes[name] > 0.0 for name, values in self._afterwards.items())

    def _dropped(self, seen: StepObservation, findings: list[Finding]) -> Decision:
        share = sum(self._recent_drops) / len(self._recent_drops)
        if len(self._recent_drops) >= BUDGET_MIN_STEPS and share > self.config.max_skip_fraction:
            reason = f"{share:.0%} of the last {len(self._recent_drops)} steps had to be dropped"
            return self._give_up(findings, reason, restore=seen.batch_finite is not False, streams=False)
        if seen.batch_finite is False:
            return self._decision(Action.SKIP_STEP, findings, "the batch is non-finite")
        run = self._runs.setdefault(seen.stream, Run())
        run.add(findings)
        patience = self._suspicious_run() * (2 if run.cleared and run.only_spikes else 1)
        if run.length < patience:
            return self._decision(Action.SKIP_STEP, findings, "")
        if not run.only_spikes:
            return self._suspect_state(seen.stream, findings)
        if run.cleared:
            return self._data_have_changed(Action.SKIP_STEP, findings, "it is as large with the last good weights")
        if self._known_good and self._applied_since_rollback == 0:
            return self._accept_level(Action.SKIP_STEP, findings)
        self.suspected = tuple(findings)
        return self._decision(Action.SKIP_STEP, findings, "")

    def judged(self, stream: int, *, at_fault: bool) -> Decision | None:
        """Decide about :attr:`suspected` findings.

        Args:
            stream: The optimizer.
            at_fault: Whether the weights are, as far as is known. If not, spikes go on being dropped for as many steps
                again; then they are the new level.

        Returns:
            The rollback; None if there is none.
        """
        findings, self.suspected = list(self.suspected), ()
        if findings[0].level_before is not None:
            return self._roll_back(findings, findings[0].title) if at_fault else None
        if at_fault:
            return self._suspect_state(stream, findings)
        self._runs[stream].cleared = True
        return None

    def _suspect_state(self, stream: int, findings: list[Finding]) -> Decision:
        """Roll back from dropped steps in a row."""
        run, scale = self._runs[stream], self.learning_rate.scale
        reason = f"{run.length} steps in a row were dropped"
        newest = self.ledger.newest() if self._rollbacks == 0 and not run.only_spikes else None  # then the trusted one
        decision = self._roll_back(findings, reason, to=newest, streams=False)
        if run.only_spikes and decision.action is Action.ROLLBACK:
            self.spiking, self._scale_before, self._spikes = stream, scale, dict(run.least)
        return decision

    def _suspicious_run(self) -> int:
        """Drops in a row that chance does not explain, given how many of the steps before had to be dropped.

        A layer that fails on every third batch gives three failures in a row every few steps, with the state in
        perfect health. A run of k drops has probability p^k where each step is dropped with probability p.
        """
        share = sum(self._weathered) / len(self._weathered) if self._weathered else 0.0
        smallest = self.config.max_consecutive_skips
        if not 0.0 < share < 1.0:
            return smallest
        return max(smallest, min(math.ceil(math.log(CHANCE_OF_A_RUN) / math.log(share)), LONGEST_RUN))

    def _accept_level(self, action: Action, findings: list[Finding]) -> Decision:
        self._rollbacks -= 1
        self.learning_rate.undo()
        return self._data_have_changed(action, findings)

    def _data_have_changed(
        self, action: Action, findings: list[Finding], why: str = "it persists from a known-good state"
    ) -> Decision:
        self._runs.clear()
        self.spiking = None
        return self._decision(
            action,
            findings,
            f"{why}, so the data have changed",
            level_accepted=True,
        )

    def _roll_back(
        self, findings: list[Finding], reason: str, *, to: LedgerEntry | None = None, streams: bool = True
    ) -> Decision:
        """Go back and cut the learning rate.

        Args:
            findings: What was found.
            reason: Why.
            to: The snapshot; the trusted one if None.
            streams: Whether the random streams go back as well.
        """
        if self._rollbacks >= self.config.max_rollbacks or self.ledger.target() is None:
            known = self.ledger.target() is not None
            tried = f"{self._rollbacks} rollback(s) brought no progress" if known else "there is no snapshot"
            return self._give_up(findings, f"{reason}, and {tried}", restore=True, streams=streams)
        self.restored_to = self.ledger.choose(to or self.ledger.target())
        self._known_good = self.restored_to is self.ledger.target()
        self._taken_back = False
        cut = self.learning_rate.cut(self._rollbacks)
        self._rollbacks += 1
        self._applied_since_rollback = 0
        self._runs.clear()
        self.spiking, self._spikes, self._afterwards = None, {}, {}
        return self._decision(Action.ROLLBACK, findings, reason, lr_cut=cut, target=self.restored_to, streams=streams)

    def _give_up(self, findings: list[Finding], reason: str, *, restore: bool, streams: bool = True) -> Decision:
        """Stop; go back to the trusted snapshot unless the present state is not suspected."""
        self.gave_up = True
        self.restored_to = self.ledger.target() if restore else None
        return self._decision(Action.STOP, findings, reason, target=self.restored_to, streams=streams)

    def _decision(
        self,
        action: Action,
        findings: list[Finding],
        reason: str,
        *,
        lr_cut: float | None = None,
        target: LedgerEntry | None = None,
        streams: bool = True,
        level_accepted: bool = False,
        lr_recovered: bool = False,
    ) -> Decision:
        if action is Action.OBSERVE and not findings and not lr_recovered and not level_accepted:
            return _nothing(self.learning_rate.scale)
        return Decision(
            action=action,
            findings=tuple(findings),
            reason=reason,
            lr_scale=self.learning_rate.scale,
            lr_cut=lr_cut,
            restore_slot=target.slot if target else None,
            restore_step=target.step if target else None,
            restore_streams=streams,
            level_accepted=level_accepted,
            lr_recovered=lr_recovered,
        )

    def state_dict(self) -> dict[str, Any]:
        """Plain state."""
        return {
            "recent_drops": list(self._recent_drops),
            "weathered": list(self._weathered),
            "runs": {str(stream): list(vars(run).values()) for stream, run in self._runs.items()},
            "rollbacks": self._rollbacks,
            "applied_since_rollback": self._applied_since_rollback,
            "spiking": self.spiking,
            "scale_before": self._scale_before,
            "spikes": dict(self._spikes),
            "afterwards": {name: list(values) for name, values in self._afterwards.items()},
            "known_good": self._known_good,
            "taken_back": self._taken_back,
            "gave_up": self.gave_up,
            "learning_rate": self.learning_rate.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a state made by :meth:`state_dict`."""
        self._recent_drops = deque(state["recent_drops"], maxlen=BUDGET_STEPS)
        self._weathered = deque(state["weathered"], maxlen=BUDGET_STEPS)
        self._runs = {int(stream): Run(*run) for stream, run in state["runs"].items()}
        self._rollbacks = int(state["rollbacks"])
        self._applied_since_rollback = int(state["applied_since_rollback"])
        self.spiking = state.get("spiking")
        self._scale_before = float(state.get("scale_before", 1.0))
        self._spikes = dict(state.get("spikes", {}))
        self._afterwards = {name: list(values) for name, values in state.get("afterwards", {}).items()}
        self._taken_back = bool(state.get("taken_back", False))
        self._known_good = bool(state.get("known_good", self._rollbacks > 0))
        self.gave_up = bool(state["gave_up"])
        self.learning_rate.load_state_dict(state["learning_rate"])


@lru_cache(maxsize=8)
def _nothing(lr_scale: float) -> Decision:
    """The decision about a step in which nothing was found; nearly all of them."""
    return Decision(action=Action.OBSERVE, lr_scale=lr_scale)
