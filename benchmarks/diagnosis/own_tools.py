"""Reading what a framework's own tool says: which operation, which line of the user's code."""

from __future__ import annotations

import re
from typing import Any

from benchmarks.diagnosis.program import Program, Truth
from nan_callbacks.diagnosis.operations import neutral_name

FRAME = re.compile(r'File "([^"]+)", line (\d+)')
ANOMALY = re.compile(r"Function '(\w+?)Backward\d*' returned nan")
CHECKED = re.compile(r'of (?:graph|eagerly-executing) op "(\w+)"')
DEBUGGED = re.compile(r"encountered in ([\w\-]+)")


def read(program: Program, truth: Truth, message: str) -> dict[str, Any]:
    """Whether the tool spoke, and whether it named the right operation and line.

    Args:
        program: What was run.
        truth: What is right.
        message: All that the tool printed and raised, tracebacks included; empty if the run went through.
    """
    if not message:
        return {
            "fired": False,
            "operation": False if truth.operations else None,
            "line": None if truth.line is None else False,
        }
    frames = [int(line) for file, line in FRAME.findall(message) if file == str(program.file)]
    named = next((found.group(1) for pattern in (ANOMALY, CHECKED, DEBUGGED) if (found := pattern.search(message))), "")
    operation = neutral_name(named) if named else ""
    return {
        "fired": True,
        "operation": operation in truth.operations if truth.operations else None,
        "line": bool(frames) and frames[-1] in program.guilty_lines(truth) if truth.line is not None else None,
        "named": operation,
    }
