"""What a guarded run leaves behind, in words that no framework owns."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import numpy as np

from nan_callbacks.core import Decision, Limits, Monitor, StepObservation

DEEDS = ("incident", "rollback", "reduce_lr", "level_accepted", "lr_recovered", "stop")


@dataclass(frozen=True)
class Record:
    """A finished run."""

    events: list[dict[str, Any]]
    summary: dict[str, Any]
    observations: list[StepObservation]
    """Everything that the core was shown."""
    limits: list[Limits]
    """What each of these steps had to stay under."""
    weights: dict[str, np.ndarray]
    """Parameters by their name in the task, kernels as [..., inputs, outputs]."""
    state: list[np.ndarray]
    """Parameters, running statistics and the optimizer's memory in the framework's own order."""
    raised: bool
    """Whether the guard ended the training with an error."""

    @property
    def story(self) -> list[str]:
        """See :func:`story_of`."""
        return story_of(self.events)

    @property
    def finite(self) -> bool:
        """Whether nothing that is left is NaN or Inf."""
        return all(bool(np.isfinite(value).all()) for value in self.state)


def story_of(events: list[dict[str, Any]]) -> list[str]:
    """One line per finding and deed; what is said besides (a summary, a diagnosis) is left out."""
    return [_line(event) for event in events if event["event"] in DEEDS]


def _line(event: dict[str, Any]) -> str:
    kind, step = event["event"], event["step"]
    if kind == "incident":
        return f"{step}: {' '.join([event['code'], *event['also']])}, {event['action']}"
    if kind == "rollback":
        return f"{step}: back to {event['restored_step']}"
    if kind == "reduce_lr":
        return f"{step}: rate at {event['lr_scale']:g}"
    if kind == "level_accepted":
        return f"{step}: new level, rate at {event['lr_scale']:g}"
    if kind == "stop":
        back = "" if event["restored_step"] is None else f", back to {event['restored_step']}"
        return f"{step}: stop{back}"
    return f"{step}: {kind}"


def same(one: Sequence[np.ndarray], other: Sequence[np.ndarray]) -> bool:
    """Bitwise equality (two NaNs are not equal)."""
    return len(one) == len(other) and all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


@dataclass(frozen=True)
class Seen:
    """What passed through the core."""

    observations: list[StepObservation]
    limits: list[Limits]
    decisions: list[Decision]


@contextmanager
def watching_the_core() -> Iterator[Seen]:
    """Notes what every monitor is shown inside the block, and what it says in the end."""
    seen, observe, settle = Seen([], [], []), Monitor.observe, Monitor.settle

    def noting(self: Monitor, observation: StepObservation) -> Decision:
        seen.limits.append(self.limits(observation.stream))
        seen.observations.append(observation)
        seen.decisions.append(observe(self, observation))
        return seen.decisions[-1]

    def noting_the_answer(self: Monitor, *question: Any) -> Decision | None:
        decision = settle(self, *question)
        seen.decisions[-1] = decision or seen.decisions[-1]
        return decision

    with patch.object(Monitor, "observe", noting), patch.object(Monitor, "settle", noting_the_answer):
        yield seen
