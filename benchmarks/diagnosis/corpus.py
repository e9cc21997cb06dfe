"""Gathers the programs of one framework; importing a file of the corpus enters its programs."""

from __future__ import annotations

import importlib
import pkgutil

from benchmarks.diagnosis.program import PROGRAMS, Part, Program


def load(framework: str, part: Part | None = None) -> list[Program]:
    """Programs of a framework, in the order of their files.

    Args:
        framework: ``lightning`` or ``keras``.
        part: Only this half of the corpus; both by default.
    """
    for half in Part:
        package = importlib.import_module(f"benchmarks.diagnosis.{half.value}")
        for found in pkgutil.iter_modules(package.__path__):
            if found.name.startswith(f"{framework}_"):
                importlib.import_module(f"{package.__name__}.{found.name}")
    return [program for program in PROGRAMS.values() if program.framework == framework and part in (None, program.part)]
