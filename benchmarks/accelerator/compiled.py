"""Lightning with a compiled module on an accelerator: no graph more, nothing left of a bad batch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch._inductor.compile_fx import compile_fx

from benchmarks.accelerator.lightning import Check, guard
from benchmarks.accelerator.runs import Small, batches, difference, fresh, train, with_bad


def checks(device: str) -> Iterator[Check]:
    graphs: dict[str, int] = {}
    states = {}
    for name, made, watching in (
        ("unguarded", batches(), None),
        ("guarded", batches(), guard(diagnose="never")),
        ("bad batch", with_bad(batches(), float("nan")), guard(diagnose="never")),
    ):
        torch.compiler.reset()
        module = fresh(Small, "AdamW")
        compiled: list[Any] = []

        def counted(graph: Any, inputs: Any, compiled: list[Any] = compiled) -> Any:
            compiled.append(graph)
            return compile_fx(graph, inputs)

        module.net.compile(backend=counted)
        states[name] = train(module, made, device=device, guard=watching)
        graphs[name] = len(compiled)
    same = difference(states["unguarded"], states["guarded"])
    yield "do no harm, compiled", not same, same
    left = difference(states["guarded"], states["bad batch"])
    yield "as if never drawn, compiled", not left, left
    yield "no graph more", 0 < graphs["guarded"] <= graphs["unguarded"], str(graphs)
