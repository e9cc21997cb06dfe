"""The line that grows while an arm trains. It only appends: the same in a terminal and in a log."""

from __future__ import annotations

import textwrap
from typing import TextIO

from nan_callbacks.demo.table import percent

COLUMNS = 100
"""Width that every output of the demo stays within."""
LABEL_WIDTH = 22
MESSAGE_INDENT = "     | "


class LiveLine:
    """Shows one arm: its label, the test accuracy after every epoch, in between what the guard says.

    Args:
        stream: Where to write.
        label: What is being trained.
        epochs: How many epochs there will be, to align what comes after them.
    """

    def __init__(self, stream: TextIO, label: str, epochs: int) -> None:
        self._stream = stream
        self._epochs = epochs
        self._shown = 0
        self._at_line_start = False
        self._write(f"   {label}".ljust(LABEL_WIDTH))

    def epoch(self, accuracy: float) -> None:
        """Append the accuracy of one more epoch, in percent."""
        self._resume()
        self._write(f" {100 * accuracy:3.0f}")
        self._shown += 1

    def say(self, message: str) -> None:
        """Put a message on lines of its own; the accuracies go on below it, in their columns."""
        if not self._at_line_start:
            self._write("\n")
        self._at_line_start = True
        for line in message.splitlines():
            self._write(_wrapped(line) + "\n")

    def finish(self, accuracy: float) -> None:
        """Append the final accuracy and end the line."""
        self._resume()
        self._write("    " * (self._epochs - self._shown) + f"   {percent(accuracy):>7}\n")

    def repeat(self, accuracy: float) -> None:
        """Show the result of a run that has been shown before."""
        self._write(" as above".ljust(4 * self._epochs))
        self._shown = self._epochs
        self.finish(accuracy)

    def _resume(self) -> None:
        if self._at_line_start:
            self._write(" " * (LABEL_WIDTH + 4 * self._shown))
            self._at_line_start = False

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


def _wrapped(line: str) -> str:
    return textwrap.fill(
        line, COLUMNS, initial_indent=MESSAGE_INDENT, subsequent_indent=MESSAGE_INDENT + "  ", break_on_hyphens=False
    )
