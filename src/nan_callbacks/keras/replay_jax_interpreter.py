"""A traced JAX program, evaluated equation by equation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from jax import numpy as jnp
from jax.extend import core as jex

from nan_callbacks.core.tensor_summary import TensorSummary
from nan_callbacks.diagnosis.blame import ELEMENTWISE
from nan_callbacks.diagnosis.operations import neutral_name
from nan_callbacks.keras.replay_jax_sites import NAMED, SiteMarks, line_of_traceback
from nan_callbacks.keras.replay_sites import Site
from nan_callbacks.keras.replay_trace import Happening, Trace

_PLAIN = frozenset({"add", "subtract", "cast", "neg", "negate", "maximum", "minimum", "max", "min"})
_KEPT = (ELEMENTWISE - _PLAIN) | {"matmul", "convolution"}
_INNER = ("jaxpr", "call_jaxpr", "fun_jaxpr")
_CALLS = frozenset(
    [
        "jit",
        "pjit",
        "closed_call",
        "core_call",
        "remat",
        "remat2",
        "checkpoint",
        "custom_jvp_call",
        "custom_vjp_call",
        "custom_vjp_call_jaxpr",
        "custom_lin",
    ]
)


@dataclass(slots=True)
class Value:
    """One value of the program."""

    array: Any
    node: int | None = None
    """Its node, if it is non-finite."""
    backward: bool = False
    """Whether transposition made the equation that it comes from."""


@dataclass(frozen=True)
class Region:
    """Where in nested programs an equation stands."""

    number: int | None = None
    """Of the operation around it."""
    backward: bool = False
    turns: tuple[int, ...] = ()
    """Which turn of each loop around it is running, the innermost last."""
    primal: bool = True


@dataclass
class Derived:
    """What is known about an operation when its derivative is evaluated."""

    primal: int = -1
    """Place of its own equation, as opposed to those of its derivative."""
    operands: tuple[Any, ...] = ()
    waiting: list[Happening] = field(default_factory=list)
    """Those that lack the incoming gradient."""


class Interpreter:
    """Evaluates and notes.

    Args:
        trace: Where non-finite results are noted.
        marks: Tells which operation an equation belongs to.
    """

    def __init__(self, trace: Trace, marks: SiteMarks) -> None:
        self.updates: set[int] = set()
        """Numbers of the operations that belong to the optimizer."""
        self._trace = trace
        self._marks = marks
        self._late = False
        self._known: dict[Any, Derived] = {}
        self.current: Site | None = None
        self.current_name = ""
        self.current_backward = False

    def run(self, jaxpr: Any, consts: Sequence[Any], args: Sequence[Value], region: Region) -> list[Value]:
        """Evaluate a program.

        Args:
            jaxpr: The program.
            consts: Its constants.
            args: Its arguments.
            region: Where it stands.
        """
        values: dict[Any, Value] = dict(zip(jaxpr.constvars, [_as_value(each) for each in consts], strict=True))
        values.update(zip(jaxpr.invars, args, strict=True))
        last_use = {
            var: i for i, eqn in enumerate(jaxpr.eqns) for var in eqn.invars if not isinstance(var, jex.Literal)
        }
        kept = {var for var in jaxpr.outvars if not isinstance(var, jex.Literal)}

        def read(atom: Any) -> Value:
            return Value(atom.val) if isinstance(atom, jex.Literal) else values[atom]

        for index, eqn in enumerate(jaxpr.eqns):
            inputs = [read(atom) for atom in eqn.invars]
            values.update(zip(eqn.outvars, self._equation(eqn, inputs, region), strict=True))
            for var in eqn.invars:
                if not isinstance(var, jex.Literal) and last_use[var] == index and var not in kept:
                    values.pop(var, None)
        return [read(atom) for atom in jaxpr.outvars]

    def _equation(self, eqn: Any, inputs: list[Value], region: Region) -> list[Value]:
        number, transposed = self._marks.site(eqn.source_info.name_stack)
        number = region.number if number is None else number
        backward = region.backward or transposed
        inner = replace(region, number=number, backward=backward)
        name = eqn.primitive.name
        if name == "scan":
            return self._scan(eqn.params, inputs, inner)
        if name == "while":
            return self._while(eqn.params, inputs, inner)
        if name == "cond":
            branches = eqn.params["branches"]
            branch = branches[int(np.clip(int(inputs[0].array), 0, len(branches) - 1))]
            return self.run(branch.jaxpr, branch.consts, inputs[1:], inner)
        program = next((eqn.params[key] for key in _INNER if key in eqn.params), None)
        if name in _CALLS and program is not None and any(_is_float(value.array) for value in inputs):
            if hasattr(program, "jaxpr"):
                return self.run(program.jaxpr, program.consts, inputs, inner)
            return self.run(program, (), inputs, inner)
        return self._operation(eqn, inputs, inner)

    def _operation(self, eqn: Any, inputs: list[Value], region: Region) -> list[Value]:
        self._trace.count()
        self.current, self.current_name = self._site(eqn, region), eqn.primitive.name
        self.current_backward = region.backward
        arrays = [value.array for value in inputs]
        results = _bound(eqn, arrays)
        self._late = self._late or region.backward
        derived = self._derived(eqn, inputs, region)
        nodes = self._trace.operation(
            [(value.array, value.node) for value in inputs if _is_number(value.array)],
            results,
            lambda: self._describe(eqn, inputs, region, derived),
        )
        return [Value(result, node, region.backward) for result, node in zip(results, nodes, strict=True)]

    def _site(self, eqn: Any, region: Region) -> Site:
        if region.number is None:
            return Site(f"jax.{eqn.primitive.name}", source=line_of_traceback(eqn.source_info.traceback, "pjit.py"))
        site = self._marks.sites[region.number]
        return replace(site, time_step=region.turns[-1]) if region.turns else site

    def _derived(self, eqn: Any, inputs: list[Value], region: Region) -> Derived | None:
        """Remember an operation's operands; hand the incoming gradient to those who wait for it."""
        if region.number is None:
            return None
        key = (region.number, region.turns)
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = Derived()
            if not region.backward:
                known.primal = id(eqn)
                if neutral_name(self._marks.sites[region.number].native) in _KEPT:
                    known.operands = tuple(value.array for value in inputs)
        if region.backward and known.waiting:
            gradient = self._gradient(inputs)
            if gradient is not None:
                for happening in known.waiting:
                    happening.gradient = gradient
                known.waiting.clear()
        return known

    def _describe(self, eqn: Any, inputs: list[Value], region: Region, derived: Derived | None) -> Happening:
        assert self.current is not None
        native = f"jax.{eqn.primitive.name}"
        derivative = region.backward or (derived is not None and derived.primal != id(eqn))
        if not derivative and self.current.native.removeprefix("jax.") in NAMED:
            native = self.current.native
        optimizer = region.number in self.updates
        happening = Happening(native, self.current, derivative, self._late, optimizer)
        if derivative and derived is not None:
            happening.operands = tuple(self._trace.summary(jnp.asarray(each)) for each in derived.operands)
            happening.gradient = self._gradient(inputs) if region.backward else None
            if happening.gradient is None:
                derived.waiting.append(happening)
        happening.detail = _out_of_range(eqn, [value.array for value in inputs])
        return happening

    def _gradient(self, inputs: list[Value]) -> TensorSummary | None:
        handed = [value.array for value in inputs if value.backward and _is_float(value.array)]
        return self._trace.summary(handed[0]) if handed else None

    def _scan(self, params: Any, inputs: list[Value], region: Region) -> list[Value]:
        consts, carried, body = params["num_consts"], params["num_carry"], params["jaxpr"]
        fixed, carry, series = inputs[:consts], inputs[consts : consts + carried], inputs[consts + carried :]
        turns = range(params["length"])
        collected: dict[int, list[Value]] = {}
        for turn in reversed(turns) if params["reverse"] else turns:
            slices = [self._part(value, turn) for value in series]
            results = self.run(
                body.jaxpr, body.consts, [*fixed, *carry, *slices], replace(region, turns=(*region.turns, turn))
            )
            carry, collected[turn] = results[:carried], results[carried:]
        columns = zip(*(collected[turn] for turn in turns), strict=True)
        stacks = [self._stacked(list(column), region) for column in columns]
        if not turns:
            outputs = body.jaxpr.outvars[carried:]
            stacks = [Value(jnp.zeros((0, *var.aval.shape), var.aval.dtype)) for var in outputs]
        return [*carry, *stacks]

    def _part(self, value: Value, turn: int) -> Value:
        part = value.array[turn]
        bad = value.node is not None and self._trace.is_bad(part)
        return Value(part, value.node if bad else None, value.backward)

    def _stacked(self, column: list[Value], region: Region) -> Value:
        array = jnp.stack([value.array for value in column])
        nodes = [value.node for value in column if value.node is not None]
        if not nodes:
            return Value(array, None, region.backward)
        site = Site("jax.stack") if region.number is None else self._marks.sites[region.number]
        [node] = self._trace.operation([(array, node) for node in nodes], [array], lambda: Happening("jax.stack", site))
        return Value(array, node, region.backward)

    def _while(self, params: Any, inputs: list[Value], region: Region) -> list[Value]:
        tests, bodies = params["cond_nconsts"], params["body_nconsts"]
        test, body = params["cond_jaxpr"], params["body_jaxpr"]
        test_args, body_args, carry = inputs[:tests], inputs[tests : tests + bodies], inputs[tests + bodies :]
        turn = 0
        while True:
            inner = replace(region, turns=(*region.turns, turn))
            if not bool(self.run(test.jaxpr, test.consts, [*test_args, *carry], inner)[0].array):
                return carry
            carry = self.run(body.jaxpr, body.consts, [*body_args, *carry], inner)
            turn += 1


def _bound(eqn: Any, arrays: list[Any]) -> list[Any]:
    made = eqn.primitive.get_bind_params(eqn.params)
    subfuns, params = made if isinstance(made, tuple) else ((), made)  # a pair before JAX 0.8
    results = eqn.primitive.bind(*subfuns, *arrays, **params)
    return list(results) if eqn.primitive.multiple_results else [results]


def _as_value(array: Any) -> Value:
    return Value(array)


def _is_float(array: Any) -> bool:
    dtype = getattr(array, "dtype", None)
    return dtype is not None and bool(jnp.issubdtype(dtype, np.inexact))


def _is_number(array: Any) -> bool:
    dtype = getattr(array, "dtype", None)
    return _is_float(array) or (dtype is not None and bool(jnp.issubdtype(dtype, np.integer)))


def _out_of_range(eqn: Any, arrays: list[Any]) -> str:
    """JAX answers an index out of range with NaN: say so."""
    if eqn.primitive.name != "gather" or len(arrays) < 2 or not _is_float(arrays[0]):
        return ""
    numbers = eqn.params["dimension_numbers"]
    indices = np.asarray(arrays[1])
    for column, axis in enumerate(numbers.start_index_map):
        size, wanted = arrays[0].shape[axis], indices[..., column]
        if wanted.size and (wanted.min() < 0 or wanted.max() >= size):
            worst = int(wanted.min() if wanted.min() < 0 else wanted.max())
            return f"Index {worst} is out of range: the axis has {size} entries, and JAX fills in NaN."
    return ""
