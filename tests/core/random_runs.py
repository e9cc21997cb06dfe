"""Random runs for property tests: ordinary steps, and everything that can go wrong with one."""

import math
import random
from typing import Any

from hypothesis import strategies as st

from tests.core.simulated_run import SimulatedRun

SMALL = {
    "window_size": 16,
    "warmup_steps": 4,
    "snapshot_every_n_steps": 6,
    "probation_steps": 4,
    "lr_recovery_steps": 12,
    "max_rollbacks": 6,
    "max_skip_fraction": 0.8,
}
"""Settings under which a short run meets everything: full windows, trusted snapshots, recovery, level changes."""

FAULTS: dict[str, dict[str, Any]] = {
    "ordinary": {},
    "nan gradients": {"loss": math.nan, "grad_norm": math.nan},
    "inf gradients": {"grad_norm": math.inf},
    "nan loss": {"loss": math.nan},
    "inf loss": {"loss": -math.inf},
    "bad batch": {"loss": math.nan, "grad_norm": math.nan, "batch_finite": False},
    "broken parameters": {"loss": math.nan, "grad_norm": math.nan, "non_finite_parameters": 3},
    "loss spike": {"loss": 1e7},
    "gradient spike": {"grad_norm": 1e7},
    "new level": {"loss": 1e4, "grad_norm": 1e4},
    "statistics jump": {"statistics_jump": 1e6},
    "statistics overflow": {"statistics_jump": math.inf},
    "statistics of zeros": {"statistics_jump": math.nan},
    "thrown weights": {"param_norm": 1e5},
    "scaler overflow": {"grad_norm": math.inf, "scaler_overflow": True, "loss_scale": 1024.0},
    "scaler collapse": {"grad_norm": math.inf, "scaler_overflow": True, "loss_scale": 0.5},
    "nothing measured": {"loss": None, "grad_norm": None},
    "zero": {"loss": 0.0, "grad_norm": 0.0},
}

# Ordinary steps in between, or nothing would ever be learned.
SEGMENTS = st.lists(
    st.tuples(st.sampled_from([*FAULTS, *["ordinary"] * 12]), st.integers(1, 14), st.sampled_from([0, 0, 0, 1])),
    min_size=1,
    max_size=20,
)
SEEDS = st.integers(0, 2**32 - 1)


def steps_of(segments: list[tuple[str, int, int]], seed: int) -> list[dict[str, Any]]:
    """The measurements of every step of a random run."""
    noise = random.Random(seed)
    return [
        {
            "loss": noise.lognormvariate(0.0, 0.5),
            "grad_norm": noise.lognormvariate(0.0, 0.5),
            "statistics_jump": noise.lognormvariate(0.0, 0.1),
            "param_norm": noise.lognormvariate(2.0, 0.01) if noise.random() < 0.3 else None,
            "stream": stream,
            **FAULTS[fault],
        }
        for fault, length, stream in segments
        for _ in range(length)
    ]


def run_through(run: SimulatedRun, steps: list[dict[str, Any]]) -> SimulatedRun:
    for measured in steps:
        run.attempt(**measured)
    return run
