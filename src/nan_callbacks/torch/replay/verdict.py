"""From events to the words of the diagnosis."""

from __future__ import annotations

from typing import Any

from torch.autograd.function import BackwardCFunction

from nan_callbacks.diagnosis.operations import neutral_name
from nan_callbacks.diagnosis.origin import WRITTEN_BY_HAND, Origin, OriginKind, Phase
from nan_callbacks.torch.replay.alignments import unalignable
from nan_callbacks.torch.replay.batch_parts import is_non_finite_number, non_finite_rows
from nan_callbacks.torch.replay.call_sites import place_of_error, source_line
from nan_callbacks.torch.replay.events import Event, roots
from nan_callbacks.torch.replay.forward_records import named_operands
from nan_callbacks.torch.replay.known_tensors import KnownTensors, Label, Source
from nan_callbacks.torch.replay.module_paths import is_custom, module_type
from nan_callbacks.torch.replay.rows import time_of_execution
from nan_callbacks.torch.replay.summaries import summarise
from nan_callbacks.torch.replay.taint import Taint
from nan_callbacks.torch.replay.tracer import Operation, Tracer

_HIDDEN = "Its result was masked out of the loss, but not out of the gradient."
_ORDER = {Source.BATCH: 0, Source.PARAMETER: 1, Source.STATISTICS: 1, Source.BUFFER: 1, Source.ELSEWHERE: 2}
_LONGEST_MESSAGE = 300


class Verdict:
    """Names who is to blame.

    Args:
        tracer: Knows modules and places.
        taint: Knows the events.
        known: Knows the tensors from outside.
    """

    def __init__(self, tracer: Tracer, taint: Taint, known: KnownTensors) -> None:
        self._tracer, self._taint, self._known = tracer, taint, known

    def origins(self, events: list[Event], *, loss_is_finite: bool) -> tuple[Origin, ...]:
        """The origins of the NaN and Inf that some tensors hold, the one to blame first."""
        to_blame = sorted(roots(events), key=lambda event: (_rank(event), event.order))
        found: dict[object, Origin] = {}
        for event in to_blame:
            if event.site not in found:
                found[event.site] = self._origin(event, loss_is_finite)
        return tuple(found.values())

    def _origin(self, event: Event, loss_is_finite: bool) -> Origin:
        if event.label is not None:
            return self._of_label(event, event.label)
        number = self._batch_number(event)
        if number is not None:
            return Origin(kind=OriginKind.BATCH, operation=number.name, detail=f"{number.name} is {number.tensor}.")
        assert event.operation is not None
        return self._of_operation(event, event.operation, loss_is_finite)

    # ---- from outside

    def _of_label(self, event: Event, label: Label) -> Origin:
        summary = () if event.result is None else (event.result,)
        if label.source is Source.BATCH:
            return Origin(
                kind=OriginKind.BATCH,
                operation=label.name,
                operands=summary,
                result=event.result,
                rows=self._rows_of_part(label),
            )
        if label.source is Source.ELSEWHERE:
            return self._of_constant(event)
        is_parameter = label.source is Source.PARAMETER
        is_trained = is_parameter and bool(getattr(label.tensor, "requires_grad", False))
        what = "frozen parameter" if is_parameter else "buffer"
        masking = "it holds -Inf, as a mask may, but something that it masks was used"
        return Origin(
            kind=OriginKind.PARAMETERS,
            operation=label.name,
            operands=summary,
            result=event.result,
            module=self._tracer.modules.path(label.owner),
            module_type=module_type(label.owner),
            module_is_custom=is_custom(label.owner),
            is_trained=is_trained,
            detail=masking if event.is_intentional else "" if is_trained else f"a {what}: {WRITTEN_BY_HAND}",
        )

    def _rows_of_part(self, label: Label) -> tuple[int, ...] | None:
        first = next(iter(getattr(label.tensor, "shape", ())), None)
        return non_finite_rows(label.tensor) if first == self._taint.batch_size else None

    def _of_constant(self, event: Event) -> Origin:
        reader, label = event.operation, event.label
        node: Any = getattr(label.tensor if label else None, "grad_fn", None)
        is_custom_function = isinstance(node, BackwardCFunction)
        function = str(node.name()).removesuffix("Backward") if is_custom_function else ""
        if not function and reader is not None:
            function = reader.custom_function
        in_gradient = reader is not None and reader.phase is Phase.BACKWARD
        record = self._tracer.records.of_node(node) if function and not in_gradient and node is not None else None
        module = record.module if record is not None else event.module
        return Origin(
            kind=OriginKind.OPERATION,
            operation=function or "constant",
            native_operation=f"{function}.{'backward' if in_gradient else 'forward'}" if function else "constant",
            phase=event.phase,
            module=self._tracer.modules.path(module),
            module_type=module_type(module),
            module_is_custom=is_custom(module),
            custom_gradient=bool(function) and in_gradient,
            source=source_line(record.place if record is not None else event.place),
            operands=tuple(event.operands),
            result=event.result,
            rows=event.rows,
            detail="" if function else "A tensor that no operation of the step made was non-finite when it was read.",
        )

    def _batch_number(self, event: Event) -> Label | None:
        """A Python float of the batch that is NaN or Inf, if the event wrote such a number into a tensor."""
        if not event.is_intentional:
            return None
        return next((label for label in self._known.batch if is_non_finite_number(label.tensor)), None)

    # ---- operations

    def _of_operation(self, event: Event, operation: Operation, loss_is_finite: bool) -> Origin:
        record = None if operation.python_gradient else operation.forward
        native = (record or operation).facts.native
        name = neutral_name(native)
        if operation.python_gradient:
            native = f"{operation.custom_function or 'hook'}.backward: {native}"
        elif operation.node is not None and record is None:
            native, name = operation.node.name(), _operation_of_node(operation.node.name())
        hidden = loss_is_finite and operation.phase is Phase.FORWARD
        operands = event.operands if record is None else record.summaries()
        if event.gradient is not None:
            operands = [summary for summary in operands if not summary.name.startswith("grad")] + [event.gradient]
        custom = operation.custom_function
        too_long = unalignable(operation)
        detail = _detail(event, custom, hidden)
        return Origin(
            kind=OriginKind.OPERATION,
            operation=name,
            native_operation=native,
            phase=Phase.BACKWARD if hidden else operation.phase,
            module=self._tracer.modules.path(operation.module),
            module_type=module_type(operation.module),
            module_is_custom=is_custom(operation.module),
            custom_gradient=operation.python_gradient or bool(custom),
            source=source_line(operation.place),
            operands=tuple(operands),
            result=event.result,
            rows=tuple(too_long) or event.rows,
            time_step=self._time_step(event, operation),
            detail=detail or next(iter(too_long.values()), ""),
            absorbed_by=self._taint.absorber_of(operation) if hidden or operation.phase is Phase.BACKWARD else "",
        )

    def _time_step(self, event: Event, operation: Operation) -> int | None:
        if event.time_step is not None:
            return event.time_step
        return time_of_execution(operation, self._tracer, self._taint.uses)

    # ---- errors

    def of_error(self, error: Exception) -> tuple[Origin, ...]:
        """Origins of an error: where its NaN began if one led to it, then the error itself."""
        failed = self._taint.failed_operation
        in_operation = failed is not None and failed[1] is error
        events = failed[2] if failed is not None and in_operation else self._taint.last_read
        operation = failed[0] if failed is not None and in_operation else None
        raised = self._error_origin(error, operation)
        causes = [event for event in roots(events) if not event.is_intentional]
        return (*self.origins(causes, loss_is_finite=False), raised) if causes else (raised,)

    def _error_origin(self, error: Exception, operation: Operation | None) -> Origin:
        modules = self._tracer.modules
        module = operation.module if operation is not None else None
        if module is None and modules.raised_in is not None and modules.raised_in[0] is error:
            module = modules.raised_in[1]
        place = place_of_error(error.__traceback__) or (operation.place if operation is not None else None)
        named = [] if operation is None else named_operands(operation)
        message = " ".join(str(error).split())[:_LONGEST_MESSAGE]
        return Origin(
            kind=OriginKind.EXCEPTION,
            operation=type(error).__name__,
            native_operation="" if operation is None else operation.facts.native,
            phase=Phase.FORWARD if operation is None else operation.phase,
            module=modules.path(module),
            module_type=module_type(module),
            module_is_custom=is_custom(module),
            source=source_line(place),
            operands=tuple(summarise(value, name) for name, value in named),
            detail=f"{type(error).__name__}: {message}",
        )


def _detail(event: Event, custom: str, hidden: bool) -> str:
    if custom:
        return f"In the hand-written gradient of {custom}."
    if event.picked_from:
        return f"It picked -Inf, which {event.picked_from} holds as a mask."
    return _HIDDEN if hidden else ""


def _rank(event: Event) -> int:
    return 2 if event.label is None else _ORDER[event.label.source]


def _operation_of_node(name: str) -> str:
    return neutral_name(name.rsplit("::", 1)[-1].split("Backward")[0])
