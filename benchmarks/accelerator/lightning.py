"""Lightning on an accelerator: the same bits with and without guard, with and without the bad batch; the cause."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from pytorch_lightning.plugins import MixedPrecision

from benchmarks.accelerator.runs import OPTIMIZERS, Small, TakesLogarithm, batches, difference, fresh, train, with_bad
from nan_callbacks.lightning import NaNGuard

PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")
Check = tuple[str, bool, str]


def guard(**arguments: Any) -> NaNGuard:
    return NaNGuard(verbose=False, strict=True, **arguments)


def precision_of(name: str, device: str) -> dict[str, Any]:
    """On a CPU Lightning would make bfloat16 of float16."""
    if name == "16-mixed" and device == "cpu":
        return {"plugins": [MixedPrecision("16-mixed", "cpu")]}
    return {"precision": name}


def checks(device: str) -> Iterator[Check]:
    for precision in PRECISIONS:
        for optimizer in OPTIMIZERS:
            yield from same_bits(optimizer, precision, device)
    yield too_high_a_rate(device)
    yield memory_of_the_host(device)
    yield the_cause(device)


def same_bits(optimizer: str, precision: str, device: str) -> Iterator[Check]:
    """Nothing happens without an incident, and nothing remains of a bad batch."""
    name, made = f"{precision}, {optimizer}", batches()
    with_precision = lambda: precision_of(precision, device)  # noqa: E731
    alone = train(fresh(Small, optimizer), made, device=device, **with_precision())
    watched = train(fresh(Small, optimizer), made, device=device, guard=guard(), **with_precision())
    differs = difference(alone, watched)
    yield f"do no harm: {name}", not differs, differs
    for value in (float("nan"), 1e30):
        watching = guard(diagnose="never")
        bad = train(fresh(Small, optimizer), with_bad(made, value), device=device, guard=watching, **with_precision())
        differs = difference(watched, bad)
        told = differs or str(watching.summary["codes"])
        yield f"as if never drawn ({value:g}): {name}", not differs and bool(watching.summary["skipped_steps"]), told


def too_high_a_rate(device: str) -> Check:
    """A rate a thousand times too high is brought down."""
    OPTIMIZERS["SGD, far too fast"] = lambda p: torch.optim.SGD(p, lr=50.0, momentum=0.9)
    watching = guard(diagnose="never", snapshot_every_n_steps=20, probation_steps=20)
    state = train(fresh(Small, "SGD, far too fast"), batches(400), device=device, guard=watching)
    finite = all(bool(value.isfinite().all()) for value in state.values() if value.is_floating_point())
    cuts, rollbacks = watching.summary["lr_cuts"], watching.summary["rollbacks"]
    return "a rate far too high", finite and cuts > 0, f"{rollbacks} rollbacks, {cuts} cuts, finite: {finite}"


def memory_of_the_host(device: str) -> Check:
    """A rollback from the host's memory goes where one from the device's does; what was proved on the way as well."""
    ends, told = [], []
    for memory in ("device", "host"):
        OPTIMIZERS["SGD, far too fast"] = lambda p: torch.optim.SGD(p, lr=50.0, momentum=0.9)
        watching = guard(snapshot_memory=memory, snapshot_every_n_steps=20, probation_steps=20)
        ends.append(train(fresh(Small, "SGD, far too fast"), batches(400), device=device, guard=watching))
        told.append(f"{watching.summary['rollbacks']} rollbacks, scale {watching.summary['lr_scale']:g}")
    differs = difference(*ends)
    return "snapshots in the host's memory", not differs and told[0] == told[1], differs or told[1]


def the_cause(device: str) -> Check:
    """The logarithm of zero is named with its line."""
    watching = guard()
    train(fresh(TakesLogarithm, "AdamW"), with_bad(batches(), 0.0), device=device, guard=watching)
    diagnosis = next((each.diagnosis for each in watching.incidents if each.diagnosis), None)
    if diagnosis is None or diagnosis.cause is None or diagnosis.origin is None:
        return "the cause of a NaN", False, f"{watching.summary['codes']}: no cause found"
    line = diagnosis.origin.source.describe() if diagnosis.origin.source else "no line"
    told = f"{diagnosis.cause.code} {diagnosis.cause.confidence.value}, {line}, rows {list(diagnosis.guilty_rows)}"
    right = diagnosis.cause.code == "NAN111" and "torch.log" in line and diagnosis.guilty_rows == (3,)
    return "the cause of a NaN", right, told
