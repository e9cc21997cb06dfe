"""The checkup of a torch model: its first step, rows of its data, and a few virtual steps."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from nan_callbacks.checkup.facts import CheckupFacts
from nan_callbacks.checkup.learning_rate import STEPS, probe_rate
from nan_callbacks.checkup.notice import CheckupReport
from nan_callbacks.checkup.rules import judge
from nan_callbacks.core.sentences import shortened
from nan_callbacks.diagnosis.known_issues import Environment, installed_versions
from nan_callbacks.diagnosis.lab import Variation
from nan_callbacks.errors import ConfigurationError
from nan_callbacks.torch.checkup_facts import components_of, facts_of
from nan_callbacks.torch.first_look import first_look
from nan_callbacks.torch.gate import learning_rates
from nan_callbacks.torch.lab import TorchLab
from nan_callbacks.torch.lab_bench import Bench, Fed
from nan_callbacks.torch.lab_evidence import narrowest
from nan_callbacks.torch.replay.batch_parts import batch_size
from nan_callbacks.torch.rng import RngState

MOST_ROWS = 4096
MOST_BATCHES = 64
MOST_SECONDS = 5.0
"""What is read of the data at most: rules of single rows (outliers, contradictions) want many, nobody wants to wait."""


def checkup(
    module: nn.Module,
    data: Any,
    *,
    loss: Callable[[nn.Module, Any], Tensor] | None = None,
    optimizer: Optimizer | None = None,
    ignore: Collection[str] = (),
    strict: bool = False,
) -> CheckupReport:
    """Look a plain torch module and its data over before the first step. Nothing is changed.

    Args:
        module: The module, in the mode (training, evaluation) in which it will be trained.
        data: A data loader, or any iterable of batches.
        loss: Called as ``loss(module, batch)``; runs the forward pass and returns the loss, shape [].
        optimizer: The optimizer, for virtual steps; None: the learning rate is not judged.
        ignore: Codes of the catalogue that are not to be told, such as ``["DATA502"]``.
        strict: Whether an error of the checkup itself is raised rather than noted in the report.

    Returns:
        The notices, the gravest first.

    Raises:
        ConfigurationError: If there is no loss to call, or the data hold no batch.
    """
    if not callable(loss):
        raise ConfigurationError.of(
            "loss", "a function (module, batch) -> loss", loss, "A plain torch module does not know its own loss."
        )
    batches = read(data)
    bench = Bench(
        module=module,
        failed=(Fed(batches[0]),),
        loss_of=lambda fed: loss(module, fed.batch),
        optimizers=() if optimizer is None else (optimizer,),
        random_streams=RngState(),
    )
    return examine(TorchLab(bench), batches[1:], framework="torch", ignore=ignore, strict=strict)


def examine(
    lab: TorchLab,
    more: Sequence[Any] = (),
    *,
    framework: str,
    of_data: tuple[Any, np.ndarray] | None = None,
    ignore: Collection[str] = (),
    components: Collection[str] = (),
    is_scheduled: bool = False,
    resumed: bool = False,
    precision: str | None = None,
    strict: bool = False,
) -> CheckupReport:
    """Look the first step of a run over.

    Args:
        lab: The first step, held still.
        more: Further batches, of which only the values are read.
        framework: In whose words remedies are given.
        of_data: Rows of the whole data set as one batch, and their numbers; they are read in place of the first batch.
        ignore: Codes that are not to be told.
        components: What the run uses besides its model, for known issues.
        is_scheduled: Whether the learning rate will change.
        resumed: Whether the weights come from a checkpoint.
        precision: What the model computes in; None: as its parameters say.
        strict: Whether an error of the checkup itself is raised rather than noted in the report.
    """
    began = time.perf_counter()
    bench = lab.bench
    look = first_look(lab)
    step = facts_of(look, bench.module, more, None if of_data is None else of_data[0])
    notes = [f"the first step raises an error: {shortened(look.raised)}"] if look.raised else []
    rate = None
    if not look.raised and not resumed and bench.optimizers:
        try:
            rate = _rate(lab, is_scheduled)
        except Exception as error:
            if strict:
                raise
            notes.append(f"the learning rate was not judged: {shortened(f'{type(error).__name__}: {error}')}")
    used = components_of(look.recorder, bench.module) | set(components)
    used |= {type(optimizer).__name__ for optimizer in bench.optimizers}
    facts = CheckupFacts(
        framework=framework,
        inputs=step.inputs,
        losses=step.losses,
        layers=step.layers,
        hazards=step.hazards,
        rate=rate,
        environment=Environment(
            versions=installed_versions(),
            devices=tuple({parameter.device.type for parameter in bench.module.parameters()}) or ("cpu",),
            precision=precision or narrowest(bench.module),
            components=frozenset(used),
        ),
        rows_read=step.rows_read,
        row_numbers=None if of_data is None else of_data[1],
        sound=step.sound,
        resumed=resumed,
        notes=tuple(notes),
    )
    report = judge(facts, ignore)
    return CheckupReport(report.notices, report.notes, time.perf_counter() - began)


def _rate(lab: TorchLab, is_scheduled: bool) -> Any:
    rates = [rate for optimizer in lab.bench.optimizers for rate in learning_rates(optimizer)]

    def run(factor: float) -> tuple[float, ...] | None:
        trial = lab.run(Variation(steps=STEPS + 1, lr_factor=factor))
        return trial.losses if trial.supported and not trial.raised else None

    names = ", ".join(type(optimizer).__name__ for optimizer in lab.bench.optimizers)
    largest = max(rates, default=0.0)
    return probe_rate(run, largest, optimizer=names, is_scheduled=is_scheduled) if largest else None


def read(data: Any) -> list[Any]:
    """A few batches of a loader; random streams, its own generators among them, go on as if it had not been touched.

    Raises:
        ConfigurationError: If there is no batch.
    """
    with _undisturbed(data):
        batches = list(_first(iter(data)))
    if not batches:
        raise ConfigurationError.of("data", "a data loader or an iterable of batches", data, "It holds no batch.")
    return batches


def _first(iterator: Iterator[Any]) -> Iterator[Any]:
    began, rows = time.perf_counter(), 0
    for batch in itertools.islice(iterator, MOST_BATCHES):
        yield batch
        rows += batch_size(batch)
        if rows >= MOST_ROWS or time.perf_counter() - began > MOST_SECONDS:
            return


@contextmanager
def _undisturbed(data: Any) -> Iterator[None]:
    streams = RngState()
    samplers = [getattr(data, "sampler", None), getattr(getattr(data, "batch_sampler", None), "sampler", None)]
    owners = [owner for owner in (data, *samplers) if owner is not None]
    generators = [each.generator for each in owners if isinstance(getattr(each, "generator", None), torch.Generator)]
    before = [(generator, generator.get_state()) for generator in generators]
    kept = getattr(data, "_iterator", None)
    try:
        yield
    finally:
        for generator, state in before:
            generator.set_state(state)
        if isinstance(data, DataLoader) and hasattr(data, "_iterator"):
            data._iterator = kept
        streams.restore()
