"""Healthy runs of `model.fit` of many kinds: the corpus on which false alarms are counted on every Keras backend.

Importing the package fills `HEALTHY_RUNS`; each family of runs has a module of its own. Choose the backend with the
environment variable `KERAS_BACKEND` before the import.
"""

from benchmarks.healthy_keras import images, numbers, optimisation, sequences, shifts
from benchmarks.healthy_keras.registry import HEALTHY_RUNS, HealthyRun

__all__ = ["HEALTHY_RUNS", "HealthyRun"]

FAMILIES = (images, numbers, optimisation, sequences, shifts)
"""The modules that registered their runs on import."""
