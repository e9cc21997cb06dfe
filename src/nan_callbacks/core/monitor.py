"""Monitor: the one object that every adapter drives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from nan_callbacks.core.config import GuardConfig
from nan_callbacks.core.decision import Decision
from nan_callbacks.core.detectors.blow_up import FIRST_STEPS
from nan_callbacks.core.detectors.divergence import HARDER
from nan_callbacks.core.draws import Draws
from nan_callbacks.core.finding import Action, Finding
from nan_callbacks.core.ledger import Ledger, LedgerEntry
from nan_callbacks.core.limits import Limits
from nan_callbacks.core.observation import StepObservation
from nan_callbacks.core.policy import Policy
from nan_callbacks.core.start import BetterStart, StartWatch
from nan_callbacks.core.stream import Stream

PARAM_NORM_EVERY_N_STEPS = 16
"""Steps between measurements of the parameter norm, which costs as much as the gradient norm does."""

STATE_VERSION = 1

RUINED_START = "LOSS408"
"""The code of the question that is answered from the first weights."""


class Monitor:
    """Observes steps, publishes limits, decides.

    An adapter calls, for every attempted optimizer step: :meth:`snapshot_is_due` before the step (and takes a
    snapshot into :meth:`snapshot_slot` if it is), :meth:`limits` for the gate, :meth:`observe` with what was
    measured. It then does what the decision says. Whether a dropped batch gives its random numbers back is asked of
    :attr:`draws`, which is told of every batch; a :attr:`question` that is left after a step is answered at once by
    :meth:`settle`. The same observations give the same limits, questions and decisions in every framework.

    Args:
        config: The user's settings.
        trials: Whether there is somebody who can try out whether the first weights do better.
    """

    def __init__(self, config: GuardConfig, *, trials: bool = False) -> None:
        self.config = config
        self.step = 0
        self.ledger = Ledger(config.snapshot_every_n_steps, config.probation_steps)
        self.policy = Policy(config, self.ledger)
        self.draws = Draws(rolls_back_at_once=config.max_consecutive_skips == 1)
        """Where the random streams stand after a dropped batch."""
        self._streams: dict[int, Stream] = {}
        self.question: Finding | None = None
        """What the last step has raised: whether the weights are at fault or the data, see :meth:`settle`."""
        self.start = StartWatch(Action[config.on_divergence.upper()], is_open=trials)
        self._witness: LedgerEntry | None = None
        self._norm_origin = 0
        """Step from which the cadence of the parameter norm counts: growth is measured from a restored state on."""

    @property
    def lr_scale(self) -> float:
        """Scale that the learning rate must have, relative to the user's own schedule."""
        return self.policy.learning_rate.scale

    def limits(self, stream: int = 0) -> Limits:
        """What the next step of an optimizer must stay under.

        Args:
            stream: Index of the optimizer.
        """
        if self.policy.gave_up:
            return Limits(closed=True)
        return self._stream(stream).limits()

    def wants_param_norm(self) -> bool:
        """Whether the coming observation should carry the parameter norm."""
        since = self.step - self._norm_origin
        return self._is_on_cadence(self.step) or since <= FIRST_STEPS

    def snapshot_is_due(self) -> bool:
        """Whether a snapshot should be taken before the coming step."""
        suspicious = any(stream.suspicious for stream in self._streams.values())
        return not self.policy.gave_up and self.ledger.due(self.step, suspicious=suspicious)

    def last_good(self) -> LedgerEntry | None:
        """The snapshot that trials begin with: the trusted one, or that which is just being asked."""
        return self._witness or self.ledger.target()

    def snapshot_slot(self) -> int:
        """Register the snapshot that is being taken now.

        Returns:
            The slot into which the adapter must write it.
        """
        return self.ledger.record(self.step, self._detectors_state(), keep=self.start.is_open)

    def observe(self, observation: StepObservation) -> Decision:
        """Judge one attempted step and decide about it.

        Args:
            observation: What was measured. Its ``step`` must be :attr:`step`.

        Returns:
            What the adapter must do.
        """
        self.step = observation.step + 1
        stream = self._stream(observation.stream)
        on_cadence = observation.param_norm is None or self._is_on_cadence(observation.step)
        findings = stream.update(observation, on_cadence=on_cadence)
        decision = self.policy.decide(observation, findings, suspicious=stream.suspicious)
        self._take_in(decision)
        asked = stream.relapse.observe(observation, incident=bool(findings))
        asked = asked or self.start.observe(observation, incident=bool(findings))
        self.question = self.policy.suspected[0] if self.policy.suspected else asked
        if not self.start.is_open and (self.question is None or self.question.code != RUINED_START):
            self.ledger.release_first()
        return decision

    def settle(
        self,
        finding: Finding,
        are_at_fault: Callable[[], bool | None],
        better_start: Callable[[], BetterStart | None] = lambda: None,
    ) -> Decision | None:
        """Answer :attr:`question`.

        Args:
            finding: The question.
            are_at_fault: Tries out whether the weights are at fault, beside those of the snapshot :meth:`last_good`.
                None if that cannot be tried: then harder data are not blamed for spikes and divergence, nor the
                weights for a loss that is back where it began.
            better_start: Tries out whether a few steps from the snapshot :meth:`last_good`, at a lower rate, do better
                than the run has ever done. None if not, or if that cannot be tried.

        Returns:
            What the adapter must do instead of what was decided; None if that stays.
        """
        suspected, self.question = bool(self.policy.suspected), None
        if suspected:
            can_tell = len(self._streams) == 1 and self._knew(finding)
            cleared = can_tell and are_at_fault() is False
            decision = self.policy.judged(finding.stream, at_fault=not cleared)
        elif finding.code == RUINED_START:
            decision = self._ruined_at_start(finding, better_start)
        else:
            decision = self._relapsed(finding, are_at_fault)
        if decision is not None:
            self._take_in(decision)
        return decision

    def _knew(self, finding: Finding) -> bool:
        """Whether the last good snapshot was taken at the level that was left; one from before it says nothing."""
        good = self.ledger.target()
        if finding.level_before is None or good is None:
            return good is not None
        then = Stream(self.config)
        then.load_state_dict(good.detectors.get(str(finding.stream), {}))
        level = then.loss_level()
        return level is not None and level < HARDER * finding.level_before

    def _relapsed(self, finding: Finding, are_at_fault: Callable[[], bool | None]) -> Decision | None:
        proof = None
        for witness in self.ledger.witnesses():
            self._witness = witness
            if are_at_fault():
                proof = witness
                break
        self._witness = None
        decision = None if proof is None else self.policy.relapsed(finding, proof)
        if decision is None or decision.action is not Action.ROLLBACK:
            self._stream(finding.stream).relapse.accept()
        return decision

    def _ruined_at_start(self, finding: Finding, better_start: Callable[[], BetterStart | None]) -> Decision | None:
        self._witness = first = self.ledger.first()
        better = better_start() if first is not None and self.policy.may_roll_back else None
        self._witness = None
        if first is None or better is None:
            self.ledger.release_first()
            return self.policy.take_restart_back() if self.start.broke_its_promise else None
        decision = self.policy.restart(replace(finding, detail=better.describe()), first, better.cut)
        if decision.action is Action.ROLLBACK:
            self.start.restarted(finding.value)
        return decision

    def deepen(self, decision: Decision, cut_by_trials: Callable[[float], float]) -> Decision:
        """Let trials say how deep the cut of a rollback must be. With adversaries no loss says which rate is best.

        Args:
            decision: What was decided; any but a rollback with a cut is returned as it is.
            cut_by_trials: Tries the cut that is meant and deeper ones, from the snapshot :meth:`last_good`.

        Returns:
            The decision, with the cut that was found if it is a deeper one.
        """
        if decision.action is not Action.ROLLBACK or decision.lr_cut is None or len(self._streams) > 1:
            return decision
        self._witness = self.policy.restored_to
        cut = cut_by_trials(decision.lr_cut)
        self._witness = None
        return self.policy.deepen(decision, cut) if cut < decision.lr_cut else decision

    def state_dict(self) -> dict[str, Any]:
        """Plain state: numbers, strings, booleans, None, lists and dicts."""
        return {
            "version": STATE_VERSION,
            "step": self.step,
            "norm_origin": self._norm_origin,
            "policy": self.policy.state_dict(),
            "ledger": self.ledger.state_dict(),
            "dropped_in_a_row": self.draws.in_a_row,
            "start": self.start.state_dict(),
            "streams": self._detectors_state(),
        }

    def load_state_dict(self, state: dict[str, Any], *, snapshots_kept: bool = True) -> None:
        """Take over a state made by :meth:`state_dict`.

        Args:
            state: The state.
            snapshots_kept: False if the adapter does not hold the snapshots that the state speaks of.

        Raises:
            ValueError: If the state was written by a version that this one cannot read.
        """
        if state.get("version") != STATE_VERSION:
            raise ValueError(
                f"expected a monitor state of version {STATE_VERSION}, received {state.get('version')!r}; "
                "resume with the version of nan-callbacks that wrote the checkpoint."
            )
        self.step = int(state["step"])
        self._norm_origin = int(state["norm_origin"])
        self.policy.load_state_dict(state["policy"])
        self.ledger.load_state_dict(state["ledger"])
        self.draws.in_a_row = int(state.get("dropped_in_a_row", 0))  # absent from states of earlier versions
        if "start" in state:  # absent from states of earlier versions
            self.start.load_state_dict(state["start"])
        if not snapshots_kept:
            self.ledger.forget()
        if not snapshots_kept or "start" not in state:
            self.start.close()
        self._load_detectors(state["streams"])

    def _is_on_cadence(self, step: int) -> bool:
        return (step - self._norm_origin) % PARAM_NORM_EVERY_N_STEPS == 0

    def _stream(self, index: int) -> Stream:
        if index not in self._streams:
            self._streams[index] = Stream(self.config)
        return self._streams[index]

    def _take_in(self, decision: Decision) -> None:
        if decision.level_accepted:
            for each in self._streams.values():
                each.accept_level()
            self.ledger.renew_detectors(self._detectors_state())
        if decision.action is Action.ROLLBACK:
            self._rewind_detectors()
            if self.policy.spiking is not None:
                self.policy.restored(self._stream(self.policy.spiking).limits())
            self.start.rolled_back(self.step)
            self._norm_origin = self.step

    def _rewind_detectors(self) -> None:
        target = self.policy.restored_to
        if target is not None:
            for index, stream in self._streams.items():
                stream.rewind(target.detectors.get(str(index)))

    def _detectors_state(self) -> dict[str, Any]:
        # Keys are strings so that the state survives JSON.
        return {str(index): stream.state_dict() for index, stream in self._streams.items()}

    def _load_detectors(self, states: dict[str, Any]) -> None:
        self._streams.clear()
        for index, state in states.items():
            self._stream(int(index)).load_state_dict(state)
