"""NAN1xx: NaN or Inf in the gradients, the loss or the parameters."""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from typing import Any

from nan_callbacks.core.finding import Action, Finding, Severity
from nan_callbacks.core.limits import OPEN, Limits
from nan_callbacks.core.observation import StepObservation

RECENT_STEPS = 16
"""Steps whose losses are remembered as finite or not. Chosen so that the ladder (three skips, a rollback, three skips)
has been tried before half of them are non-finite and the loss is judged broken beyond what skipping can cure."""

PERSISTENT_SHARE = 0.5
"""Share of non-finite losses from which skipping is taken not to help."""


NON_FINITE_LOSS = Limits(admit_non_finite_loss=True)
EVERYTHING_NON_FINITE = Limits(admit_non_finite_loss=True, admit_non_finite_gradients=True)


class NonFiniteDetector:
    """Tells apart what is non-finite, because each kind wants another reaction.

    - ``NAN103`` parameters: an earlier step broke them; skipping cannot help, a rollback can.
    - ``NAN101`` gradients: the update would destroy the weights; it is dropped. A dynamic loss scaler that overflows
      while its scale is above one and the loss is finite is doing its job: no finding.
    - ``NAN102`` loss alone, with finite gradients inside their limits (a term ``0 * log 0``, a mean over nothing): the
      update may be right. It is dropped while history says that such steps are rare; once they persist, the value
      is broken and not the training, and updates pass.
    """

    def __init__(self, action: Action = Action.SKIP_STEP) -> None:
        self.action = action
        self._recent: deque[bool] = deque(maxlen=RECENT_STEPS)
        self._reported_standing = False
        self._began = False
        """Whether a step has been seen before."""

    @property
    def persistent(self) -> bool:
        """Whether non-finite losses (with finite gradients) have become the rule."""
        recent = self._recent
        return not recent or (True in recent and sum(recent) / len(recent) >= PERSISTENT_SHARE)

    def update(self, observation: StepObservation) -> list[Finding]:
        """Name what is non-finite in this step."""
        finding = self._judge(observation)
        self._began = True
        if observation.loss is not None and observation.grad_norm_is_finite:
            self._recent.append(not observation.loss_is_finite)
            if not any(self._recent):
                self._reported_standing = False
        return [finding] if finding else []

    def limits(self) -> Limits:
        """Non-finite gradients never pass unless the user only observes; a non-finite loss passes once it persists."""
        if self.action is Action.OBSERVE:
            return EVERYTHING_NON_FINITE
        return NON_FINITE_LOSS if self.persistent else OPEN

    def accept_level(self) -> None:
        """Nothing to forget: NaN is never a new normal, and the record of losses takes care of itself."""

    def state_dict(self) -> dict[str, Any]:
        """Plain state."""
        return {"recent": list(self._recent), "reported_standing": self._reported_standing, "began": self._began}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a state made by :meth:`state_dict`."""
        self._recent = deque((bool(flag) for flag in state["recent"]), maxlen=RECENT_STEPS)
        self._reported_standing = bool(state["reported_standing"])
        self._began = bool(state.get("began", True))  # absent from states of earlier versions

    def _judge(self, seen: StepObservation) -> Finding | None:
        if seen.non_finite_parameters:
            return self._finding(
                seen,
                "NAN103",
                "non-finite parameters",
                "parameters",
                Action.ROLLBACK,
                seen.loss,
                f"{seen.non_finite_parameters} parameter(s) were non-finite before this step: {self._who_wrote(seen)}",
            )
        if seen.grad_norm is not None and not seen.grad_norm_is_finite:
            if seen.left_to_scaler:
                return None
            detail = "the batch itself is non-finite" if seen.batch_finite is False else ""
            return self._finding(
                seen, "NAN101", "non-finite gradients", "grad_norm", self.action, seen.grad_norm, detail
            )
        if seen.loss is None or seen.loss_is_finite:
            return None
        rare = self.action is Action.OBSERVE and not self.persistent
        if rare or not seen.applied:
            return self._finding(
                seen, "NAN102", "non-finite loss", "loss", self.action, seen.loss, "its gradients are finite"
            )
        if self._reported_standing:
            return None
        self._reported_standing = True
        so_far = "skipping does not help" if self._recent else "no step has shown yet that its loss can be finite"
        detail = f"its gradients are finite and inside their limits, and {so_far}: updates are applied"
        finding = self._finding(seen, "NAN102", "non-finite loss", "loss", Action.OBSERVE, seen.loss, detail)
        return replace(finding, standing=True)

    def _finding(
        self,
        seen: StepObservation,
        code: str,
        title: str,
        quantity: str,
        action: Action,
        value: float | None,
        detail: str,
    ) -> Finding:
        where = ", ".join(seen.non_finite_names[:3])
        if self.action in (Action.OBSERVE, Action.STOP):
            action = self.action
        more = max(seen.non_finite_gradients, seen.non_finite_parameters or 0) - len(seen.non_finite_names[:3])
        return Finding.of(
            seen,
            code=code,
            title=title,
            severity=Severity.ERROR,
            action=action,
            where=where + (f" and {more} more" if where and more > 0 else ""),
            quantity=quantity,
            value=value,
            detail=detail,
        )

    def _who_wrote(self, seen: StepObservation) -> str:
        if not self._began:
            return "they came so into this fit"
        if not seen.optimizer_broke_parameters:
            return "they are frozen, so that no optimizer but the code of an earlier step wrote them"
        return f"an update of {seen.optimizer_name or 'the optimizer'} made them from finite gradients"
