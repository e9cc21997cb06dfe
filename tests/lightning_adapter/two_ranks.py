"""One of two processes that train together: runs every case and saves what it is left with.

Started by test_two_ranks.py as ``python -m tests.lightning_adapter.two_ranks FILE``, with its rank in the environment.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import torch

from tests.lightning_adapter.runs import (
    OPTIMIZERS,
    SCHEDULERS,
    Batch,
    Run,
    TinyModule,
    fit,
    healthy_batches,
    spoiled,
    strict_guard,
    without,
)

AT_FAULT = 6
BAD_RANK = 1
CASES: dict[str, tuple[str, tuple[int, ...], dict[str, Any]]] = {
    "nan": ("nan", (AT_FAULT,), {}),
    "nan-at-the-start": ("nan", (0,), {}),
    "spike": ("spike", (AT_FAULT,), {}),
    "backward-nan": ("backward-nan", (AT_FAULT,), {}),
    "nan-accumulating": ("nan", (AT_FAULT, AT_FAULT + 1), {"accumulate_grad_batches": 2}),
}
"""Fault, dropped batches, options. Only one rank's batch is bad."""
ROLLBACK_AT = (6, 7, 8)


def batches_of(rank: int) -> list[Batch]:
    """This rank's share of the data."""
    return healthy_batches(28)[rank::2]


def train(rank: int, batches: list[Batch], *, guarded: bool, **options: Any) -> Run:
    """One fit on this rank."""
    return fit(
        lambda: TinyModule(OPTIMIZERS["SGD-nesterov"], SCHEDULERS["Cosine"]),
        batches,
        guard=strict_guard(snapshot_every_n_steps=4, probation_steps=2) if guarded else None,
        seed=rank,
        devices=2,
        strategy="ddp",
        use_distributed_sampler=False,
        **options,
    )


def outcome(run: Run) -> dict[str, Any]:
    """What is compared, as plain containers."""
    events = [event for event in (run.guard.events if run.guard else []) if event["event"] != "diagnosis"]
    return {
        "state": run.state,
        "summary": run.guard.summary if run.guard else None,
        "diagnosed": [
            each.diagnosis.cause.code for each in (run.guard.incidents if run.guard else ()) if each.diagnosis
        ],
        "events": [(event["event"], event.get("step"), event.get("code")) for event in events],
    }


def main(path: str) -> None:
    """Run all cases on the rank that the environment names."""
    rank = int(os.environ["LOCAL_RANK"])
    results: dict[str, Any] = {}
    healthy = batches_of(rank)
    for name, (fault, dropped, options) in CASES.items():
        bad = spoiled(healthy, dropped[:1], fault) if rank == BAD_RANK else healthy
        results[name] = outcome(train(rank, bad, guarded=True, **options))
        results[f"{name} reference"] = outcome(train(rank, without(healthy, dropped), guarded=False, **options))
    bad = spoiled(healthy, ROLLBACK_AT, "backward-nan") if rank == BAD_RANK else healthy
    results["rollback"] = outcome(train(rank, bad, guarded=True))
    torch.save(results, path)


if __name__ == "__main__":
    main(sys.argv[1])
