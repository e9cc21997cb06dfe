"""Looking a model and its data over, whatever framework it belongs to."""

from __future__ import annotations

from typing import Any

from nan_callbacks.checkup.notice import CheckupReport
from nan_callbacks.diagnosis.catalogue import known_codes
from nan_callbacks.step_diagnosis import room_of


def checkup(model: Any, data: Any, **options: Any) -> CheckupReport:
    """What will go wrong, before the first step: data, labels, loss, initialisation, learning rate, versions.

    A few batches are read and the first step is run on copies; model, optimizer, data order and random streams are left
    bitwise as they were.

    Args:
        model: A Lightning module, a compiled Keras model, or a torch module.
        data: A data loader, data module or iterable of batches; for Keras ``(x, y)`` arrays, or what ``fit`` takes.
        **options: ``ignore=`` codes that are not to be told, ``strict=`` raises errors of the checkup itself,
            ``optimizer=``; for a plain torch module ``loss=`` (a function of module and batch, which is required); for
            Keras ``batch_size=``. The adapter's own ``checkup`` says more.

    Returns:
        The notices, the gravest first; ``print(report.describe())``.

    Raises:
        NaNCallbacksError: If no adapter serves this kind of model.

    Example:
        >>> print(checkup(module, loader).describe())  # doctest: +SKIP
    """
    if "ignore" in options:
        options["ignore"] = known_codes(options["ignore"])
    model = getattr(model, "_orig_mod", model)  # what torch.compile has wrapped
    made: CheckupReport = room_of(model, "checkup").checkup(model, data, **options)
    return made
