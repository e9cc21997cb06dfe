"""Keras takes its backend from the environment once per process, so these tests run in one of their own."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.mark.slow
@pytest.mark.skipif(bool(os.environ.get("KERAS_BACKEND")), reason="runs in this process already")
@pytest.mark.skipif(importlib.util.find_spec("keras") is None, reason="needs keras")
def test_keras_layers_on_torch():
    finished = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", str(HERE / "test_keras.py")],
        env={**os.environ, "KERAS_BACKEND": "torch"},
        cwd=HERE.parents[1],
        capture_output=True,
        text=True,
    )

    assert finished.returncode == 0, finished.stdout[-4000:] + finished.stderr[-2000:]
