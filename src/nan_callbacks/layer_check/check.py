"""The checks of one layer, one after the other."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from nan_callbacks.layer_check import consistency, gradients
from nan_callbacks.layer_check.bench import Bench, bench_for
from nan_callbacks.layer_check.blame import CUSTOM, remedy
from nan_callbacks.layer_check.cases import CASES, HALF_CASES, ORDINARY, build, ordinary
from nan_callbacks.layer_check.finiteness import FinitenessCheck
from nan_callbacks.layer_check.minimise import minimised
from nan_callbacks.layer_check.result import Failure, LayerCheckResult
from nan_callbacks.layer_check.spec import Arrays, Signature, signature_of

_GRADIENT_TRIES = 12
_MEANT = "If that is meant (a straight-through or detached gradient), pass gradient_check=False."
_BATCH_REMEDY = "Reduce over the feature dimensions only, or keep running statistics for evaluation."
_RANDOM_REMEDY = "Draw random numbers in training mode only, and change no state in evaluation mode."


def check_layer(
    layer: Any,
    input_spec: Any,
    *,
    target_spec: Any = None,
    backward: bool = True,
    gradient_check: bool = True,
    batch_invariance: bool = True,
    determinism: bool = True,
    half_precision: bool = False,
    seed: int = 0,
) -> LayerCheckResult:
    """Put a layer, a loss or a function through inputs at the edges.

    The layer's weights, buffers and random streams are left as they were; a Keras layer is built if it is not yet.

    Args:
        layer: A ``torch.nn.Module``, a Keras 3 layer or loss, a torch loss, or a function of tensors.
        input_spec: Shape of the input with the batch dimension, such as ``(8, 16)``; or an :class:`.InputSpec`; or a
            list of them (positional arguments) or a dict (keyword arguments).
        target_spec: Of a loss: what it compares with. A torch loss is called with input and target, a Keras loss with
            target and input.
        backward: Whether gradients must be finite.
        gradient_check: Whether gradients must agree with finite differences.
        batch_invariance: Whether, in evaluation mode, a row must give the same alone as in a batch.
        determinism: Whether, in evaluation mode, the same input must give the same output twice.
        half_precision: Whether the layer must work in float16.
        seed: Of all random numbers.

    Returns:
        What was found; ``print(result.describe())``.

    Raises:
        ConfigurationError: If the layer cannot be called or a shape is none.

    Example:
        >>> print(check_layer(MyNorm(16), (8, 16)).describe())  # doctest: +SKIP
    """
    signature = signature_of(input_spec, target_spec)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what frameworks say about extreme inputs is the very subject
        examination = _Examination(bench_for(layer, signature, seed), signature, seed)
        examination.finiteness((*CASES, *(HALF_CASES if half_precision else ())), backward)
        if gradient_check and not examination.is_broken:
            examination.gradients()
        if determinism and not examination.is_broken:
            examination.determinism()
        if batch_invariance and not examination.is_broken:
            examination.batch_invariance()
    return examination.result()


def assert_numerically_safe(layer: Any, input_spec: Any, **options: Any) -> None:
    """Raise an ``AssertionError`` that tells what is wrong, unless a layer passes :func:`check_layer`.

    Args:
        layer: As for :func:`check_layer`.
        input_spec: As for :func:`check_layer`.
        **options: As for :func:`check_layer`.
    """
    __tracebackhide__ = True
    result = check_layer(layer, input_spec, **options)
    if not result.passed:
        raise AssertionError(result.describe())


class _Examination:
    """Collects what the checks find."""

    def __init__(self, bench: Bench, signature: Signature, seed: int) -> None:
        self._bench, self._signature, self._seed = bench, signature, seed
        self._ordinary: Arrays = ordinary(signature, seed)
        self._found: list[Failure] = []
        self._checked: list[str] = []
        self._skipped: list[str] = []
        self.is_broken = False
        """Whether the layer cannot even be called with an ordinary input."""

    def finiteness(self, cases: Any, backward: bool) -> None:
        check = FinitenessCheck(self._bench, self._signature, backward)
        for case in cases:
            arrays = build(case, self._signature, self._seed)
            if arrays is None or self.is_broken:
                continue
            self._checked.append(f"finite · {case.name}")
            for failure in check.examine(case, arrays):
                self.is_broken = failure.check == "call" and failure.severity == "failure"
                self._add(failure)

    def gradients(self) -> None:
        check = gradients.GradientCheck(self._bench, self._signature, self._seed)
        for mismatch in self._attempt("gradient", lambda: check.mismatches(self._ordinary)) or ():
            wrong = mismatch.name

            def happens(arrays: Arrays, wrong: str = wrong) -> bool:
                try:
                    return bool(check.mismatches(arrays, (wrong,)))
                except gradients.CannotCompareError:
                    return False

            _, arrays = minimised(self._ordinary, self._signature, happens, _GRADIENT_TRIES)
            told = (check.mismatches(arrays, (wrong,)) or [mismatch])[0]
            by_hand = self._bench.hand_written_gradient(self._ordinary)
            self._add(
                Failure(
                    check="gradient",
                    case=ORDINARY,
                    phase="backward",
                    inputs=arrays,
                    operation=by_hand[0] if by_hand else "",
                    source=(by_hand[1] if by_hand else None) or self._bench.definition(),
                    module=self._bench.name,
                    message=told.describe(),
                    remedy=f"{remedy(CUSTOM, '', self._bench.framework)} {_MEANT}",
                )
            )

    def batch_invariance(self) -> None:
        rows = self._signature.rows
        found = self._attempt(
            "batch invariance", lambda: consistency.batch_dependence(self._bench, self._ordinary, rows)
        )
        if found is not None:
            self._add(self._of_behaviour("batch invariance", found[1], _BATCH_REMEDY))

    def determinism(self) -> None:
        told = self._attempt("determinism", lambda: consistency.nondeterminism(self._bench, self._ordinary))
        if told:
            self._add(self._of_behaviour("determinism", told, _RANDOM_REMEDY))

    def result(self) -> LayerCheckResult:
        blamed = {_place(each) for each in self._found if each.severity == "failure" and each.operation}
        return LayerCheckResult(
            name=self._bench.name,
            failures=tuple(each for each in self._found if each.severity == "failure"),
            infos=tuple(each for each in self._found if each.severity != "failure" and _place(each) not in blamed),
            checked=tuple(self._checked),
            skipped=tuple(self._skipped),
        )

    def _attempt(self, name: str, check: Callable[[], Any]) -> Any:
        try:
            found = check()
        except (gradients.CannotCompareError, consistency.CannotCompareError) as reason:
            self._skipped.append(f"{name}: {reason}")
            return None
        self._checked.append(f"{name} · {ORDINARY}")
        return found

    def _of_behaviour(self, check: str, message: str, todo: str) -> Failure:
        return Failure(
            check=check,
            case=ORDINARY,
            mode="evaluation" if self._bench.has_modes else "",
            inputs=self._ordinary,
            module=self._bench.name,
            source=self._bench.definition(),
            message=message,
            remedy=todo,
        )

    def _add(self, failure: Failure) -> None:
        """Keep a failure, or note its case with an earlier one of the same operation."""
        for position, known in enumerate(self._found):
            if _key(known) == _key(failure) and failure.check in ("finite", "call"):
                also_in = tuple(dict.fromkeys((*known.also_in, failure.case)))
                self._found[position] = replace(known, also_in=also_in)
                return
        self._found.append(failure)


def _place(failure: Failure) -> tuple[Any, ...]:
    return failure.check, failure.phase, failure.operation, failure.source, failure.module


def _key(failure: Failure) -> tuple[Any, ...]:
    return *_place(failure), failure.severity, failure.message if failure.check == "call" else ""
