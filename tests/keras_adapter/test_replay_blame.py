"""Walking back from a failed loss: what was written on purpose is not blamed."""

import numpy as np

from nan_callbacks.diagnosis.blame import BlameGraph, has_fresh
from nan_callbacks.diagnosis.origin import OriginKind


def graph_with(*operations):
    """Operations as (name, causes, has_nan, fresh); payloads are their names."""
    graph = BlameGraph()
    nodes = []
    for name, causes, has_nan, fresh in operations:
        behind = [graph.constant() if cause == "constant" else nodes[cause] for cause in causes]
        nodes.append(graph.operation(name, behind, has_nan=has_nan, fresh=fresh, payload=name))
    return graph, nodes


def names(graph, *ends):
    return [node.payload for node in graph.roots(ends)]


def test_the_first_operation_is_blamed_not_those_that_pass_it_on():
    graph, (_, _, last) = graph_with(
        ("log", [], False, True), ("multiply", [0], True, False), ("matmul", [1], True, False)
    )
    assert names(graph, last) == ["log"]


def test_only_what_reaches_the_end_is_blamed():
    graph, (_, exp) = graph_with(("log", [], False, True), ("exp", [], False, True))
    assert names(graph, exp) == ["exp"]


def test_a_mask_is_not_blamed_for_what_is_made_of_it():
    graph, (select, subtract) = graph_with(("select", ["constant"], False, False), ("subtract", [0], True, False))
    assert graph.nodes[select].legal
    assert names(graph, subtract) == ["subtract"]


def test_an_overflow_beside_a_mask_is_an_origin():
    graph, (_, exp) = graph_with(("add", ["constant"], False, False), ("exp", [0], False, True))
    assert names(graph, exp) == ["exp"]


def test_a_constant_that_reaches_the_end_itself_is_blamed_where_it_came_in():
    graph, (_, total) = graph_with(("select", ["constant"], False, False), ("sum", [0], False, False))
    assert names(graph, total) == ["select"]


def test_the_batch_comes_before_parameters_before_operations():
    graph = BlameGraph()
    log = graph.operation("log", [], has_nan=False, fresh=True, payload="log")
    weight = graph.given(OriginKind.PARAMETERS, "kernel")
    part = graph.given(OriginKind.BATCH, "x")
    end = graph.operation("add", [log, weight, part], has_nan=True, fresh=False, payload="add")
    assert names(graph, end) == ["x", "kernel", "log"]


def test_a_mask_in_the_batch_is_blamed_only_for_a_nan():
    graph = BlameGraph()
    mask = graph.given(OriginKind.BATCH, "mask", legal=True)
    scores = graph.operation("add", [mask], has_nan=False, fresh=False, payload="add")
    overflow = graph.operation("exp", [scores], has_nan=False, fresh=True, payload="exp")
    nothing_left = graph.operation("softmax", [scores], has_nan=True, fresh=False, payload="softmax")
    assert names(graph, overflow) == ["exp"]
    assert names(graph, nothing_left) == ["mask"]


def test_fresh_elements():
    inf, nan = np.inf, np.nan
    assert has_fresh([np.array([1.0, nan])], np.array([inf, nan]))
    assert not has_fresh([np.array([1.0, nan])], np.array([1.0, nan]))
    assert has_fresh([np.ones((2, 2)), np.array([[inf], [0.0]])], np.array([[inf, inf], [nan, 1.0]]))
    assert not has_fresh([np.ones((2, 3))], np.full((3, 2), nan))
