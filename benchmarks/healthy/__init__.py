"""Healthy training runs of many kinds: the corpus on which false alarms are counted.

Every run is finite, and ends no worse than it began unless its design says otherwise. Importing the package
fills `HEALTHY_RUNS`; each family of runs has a module of its own.
"""

from benchmarks.healthy import (
    adversarial,
    digits,
    embeddings,
    generative,
    policies,
    recurrent,
    regression,
    regularised,
    schedules,
    shifts,
    teachers,
    to_zero,
    transformers,
)
from benchmarks.healthy.registry import HEALTHY_RUNS, HealthyRun, silence_lightning

__all__ = ["HEALTHY_RUNS", "HealthyRun", "silence_lightning"]

FAMILIES = (
    adversarial,
    digits,
    embeddings,
    generative,
    policies,
    recurrent,
    regression,
    regularised,
    schedules,
    shifts,
    teachers,
    to_zero,
    transformers,
)
"""The modules that registered their runs on import."""
