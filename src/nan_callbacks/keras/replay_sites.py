"""Where an operation stands in the program: its layer, the user's line, and how often it ran before."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import dataclass
from types import CodeType, FrameType

from nan_callbacks.diagnosis.origin import SourceLine
from nan_callbacks.keras.replay_layers import OUTSIDE, LayerStack, Place
from nan_callbacks.keras.replay_source import is_user_file, line_of_frame


@dataclass(frozen=True)
class Site:
    """One operation of the program, as it was called."""

    native: str
    """The framework's name of the operation."""
    place: Place = OUTSIDE
    source: SourceLine | None = None
    time_step: int | None = None
    """In a recurrent layer or a loop: how often the same call ran before."""
    custom_gradient: bool = False
    """Whether it stands in a gradient that the user wrote by hand."""


class SiteFinder:
    """Reads sites from the live stack.

    Args:
        layers: Which layer is running.
        below: The function that runs the step; frames outside of it are not part of the step.
    """

    def __init__(self, layers: LayerStack, below: CodeType) -> None:
        self._layers = layers
        self.below = below
        self._runs: Counter[int] = Counter()

    def site(self, native: str, *, source: SourceLine | None = None, custom_gradient: bool = False) -> Site:
        """The site of an operation that is called right now.

        Args:
            native: The framework's name of the operation.
            source: The user's line, if it is known better than the stack tells.
            custom_gradient: See :attr:`Site.custom_gradient`.
        """
        place = self._layers.top
        innermost, trail = self._walk(sys._getframe(1))
        key = hash((native, place.path, tuple(trail)))
        before = self._runs[key]
        self._runs[key] += 1
        # Without a line of the user's, a repeated call is Keras' own loop over the layers of a graph.
        looped = place.is_recurrent or (before > 0 and place.path and innermost is not None)
        if source is None and innermost is not None:
            source = line_of_frame(innermost)
        return Site(native, place, source, before if looped else None, custom_gradient)

    def _walk(self, frame: FrameType | None) -> tuple[FrameType | None, list[int]]:
        innermost = None
        trail: list[int] = []
        while frame is not None and frame.f_code is not self.below:
            code = frame.f_code
            if innermost is None and is_user_file(code.co_filename):
                innermost = frame
            trail += (id(code), frame.f_lasti)
            frame = frame.f_back
        return innermost, trail
