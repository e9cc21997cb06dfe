"""How signals and gradients fare through the layers before the first update."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.checkup.facts import activation, healthy, layer, layers, of_layers, said

USUAL = st.floats(0.5, 1.5)
SYMMETRIC = {"weights_all_equal": True, "gradients_all_equal": True, "weight_scale": 0.0}


def codes(*facts):
    return [code for code, _ in of_layers(*facts)]


# -- healthy ---------------------------------------------------------------------------------------------------------


@given(count=st.integers(0, 9), growth=USUAL, gradient=USUAL)
def test_nothing_about_layers_of_the_usual_scale(count, growth, gradient):
    assert of_layers(*layers(count, growth, gradient)) == []


def test_nothing_about_no_layers():
    assert of_layers() == []


def test_a_resumed_run_has_no_start():
    assert said(healthy(layers=layers(8, 10.0))) != []
    assert said(healthy(layers=layers(8, 10.0), resumed=True)) == []


# -- signal ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("growth", [6.0, 100.0, 1e30])
def test_a_growing_signal_is_told(growth):
    assert codes(*layers(4, growth)) == ["ACT304"]


@pytest.mark.parametrize("growth", [0.1, 1e-3, 1e-30])
def test_a_shrinking_signal_is_told(growth):
    assert codes(*layers(4, growth)) == ["ACT304"]


def test_a_signal_that_vanishes_is_told():
    assert codes(layer(0), layer(1, out_std=0.0), layer(2, is_output=True)) == ["ACT304"]


def test_a_normalisation_sets_the_scale_anew():
    parts = []
    for at in range(8):
        parts += [layer(2 * at, out_std=20.0), layer(2 * at + 1, has_weights=False, is_normalisation=True)]
    assert of_layers(*parts, layer(20, is_output=True)) == []


def test_the_output_may_have_any_scale():
    assert of_layers(layer(0), layer(1), layer(2, is_output=True, out_std=1e6)) == []


def test_saturated_layers_hide_what_their_weights_do():
    hidden = [layer(at, weight_scale=30.0, saturated_share=0.9, kind="tanh") for at in range(3)]
    assert "ACT304" in codes(*hidden, layer(4, is_output=True))


def test_another_signal_is_another_part():
    """The layers of a flow that look at large and at small features in turn."""
    nets = [(3.0, 1.7), (1.0, 0.6), (0.01, 0.006), (0.005, 0.003)]
    parts = [layer(at, in_std=received, out_std=returned) for at, (received, returned) in enumerate(nets)]
    assert of_layers(*parts, layer(4, is_output=True)) == []


@pytest.mark.parametrize("missing", ["in_std", "out_std"])
def test_what_was_not_measured_is_not_judged(missing):
    assert of_layers(*[layer(at, **{missing: None}) for at in range(4)]) == []


# -- symmetry --------------------------------------------------------------------------------------------------------


def test_equal_units_stay_equal():
    assert of_layers(layer(0, **SYMMETRIC), layer(1, is_output=True)) == [("ACT305", "symmetric")]


def test_zero_weights_are_told_as_zero():
    zero = {**SYMMETRIC, "weights_all_zero": True, "out_std": 0.0}
    assert of_layers(layer(0, **zero), layer(1, **zero), layer(2, is_output=True)) == [("ACT305", "symmetric")]


@pytest.mark.parametrize(
    "healthy_reason",
    [{"trainable": False}, {"gradients_all_equal": False}, {"is_output": True}, {"has_weights": False}],
)
def test_equal_units_that_are_harmless(healthy_reason):
    assert of_layers(layer(0, **{**SYMMETRIC, **healthy_reason}), layer(1, is_output=True)) == []


def test_equal_and_saturated_layers_are_judged():
    """As ``Dense(8, 'tanh', kernel_initializer='ones')`` twice: the weights' deviation is zero."""
    stuck = [layer(at, saturated_share=0.9, kind="tanh", **SYMMETRIC) for at in range(2)]
    assert "ACT305" in codes(*stuck, layer(3, is_output=True))


# -- activations -----------------------------------------------------------------------------------------------------


def test_saturated_activations_are_told():
    parts = (layer(0), activation(1, "tanh", saturated_share=0.9), layer(2, is_output=True))
    assert of_layers(*parts) == [("ACT302", "at_start")]


@pytest.mark.parametrize("share", [None, 0.0, 0.5])
def test_activations_that_are_partly_saturated_are_healthy(share):
    assert of_layers(layer(0), activation(1, "tanh", saturated_share=share), layer(2, is_output=True)) == []


def test_a_sigmoid_at_the_output_may_be_sure():
    assert (
        of_layers(layer(0), layer(1, is_output=True), activation(2, "sigmoid", saturated_share=1.0, is_output=True))
        == []
    )


@pytest.mark.parametrize(
    ("share", "expected"), [(None, []), (0.0, []), (0.7, []), (0.8, ["ACT303"]), (1.0, ["ACT303"])]
)
def test_dead_units_are_told(share, expected):
    assert codes(layer(0), activation(1, "relu", dead_share=share), layer(2, is_output=True)) == expected


# -- gradients -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("gradient", "expected"), [(1e-3, "GRAD202"), (0.0, "GRAD202"), (1e3, "GRAD203")])
def test_gradients_that_vanish_or_explode(gradient, expected):
    assert codes(*layers(4, 1.0, gradient)) == [expected]


@pytest.mark.parametrize("gradient", [0.1, 0.5, 2.0, 10.0])
def test_gradients_of_deep_networks_are_healthy(gradient):
    assert of_layers(*layers(4, 1.0, gradient)) == []


def test_a_layer_in_front_of_zeros_that_learn_has_no_gradient_yet():
    """Adapters of low rank: the second matrix of each begins at zero."""
    pairs = [layer(at, weights_all_zero=at % 2 == 1, grad_out_std=float(at % 2)) for at in range(4)]
    assert of_layers(*pairs, layer(4, is_output=True)) == []
    still = [layer(at, weights_all_zero=at == 1, grad_out_std=float(at > 1)) for at in range(4)]
    assert codes(*still, layer(4, is_output=True)) == ["GRAD202"]


def test_frozen_layers_have_no_gradients_to_judge():
    frozen = [layer(at, trainable=False, grad_out_std=1e-30) for at in range(2)]
    assert of_layers(*frozen, layer(2), layer(3), layer(4, is_output=True)) == []


# -- anything --------------------------------------------------------------------------------------------------------

MEASURED = st.one_of(st.none(), st.floats(0), st.sampled_from([0.0, 5e-324, 1e-300, 1e308, math.inf, math.nan]))
SHARE = st.one_of(st.none(), st.floats(0, 1))
ANY_LAYER = st.builds(
    layer,
    depth=st.integers(0, 5),
    has_weights=st.booleans(),
    is_normalisation=st.booleans(),
    is_output=st.booleans(),
    trainable=st.booleans(),
    in_std=MEASURED,
    out_std=MEASURED,
    grad_out_std=MEASURED,
    weight_scale=MEASURED,
    weights_all_zero=st.booleans(),
    weights_all_equal=st.booleans(),
    gradients_all_equal=st.booleans(),
    saturated_share=SHARE,
    dead_share=SHARE,
)


@given(st.lists(ANY_LAYER, max_size=6))
def test_any_layers_can_be_judged(parts):
    assert set(codes(*parts)) <= {"ACT302", "ACT303", "ACT304", "ACT305", "GRAD202", "GRAD203"}


def test_a_branch_that_begins_at_next_to_nothing_is_no_explosion():
    """LayerScale: what its layers return is multiplied by 1e-6, and so is their gradient."""
    trunk, branch = layer(0), layer(1, grad_out_std=1e-9)
    assert of_layers(trunk, branch, layer(2, is_output=True)) == []
    assert codes(trunk, branch, layer(2, is_output=True, grad_out_std=1e-9)) == ["GRAD203"]


@pytest.mark.parametrize("out_std", [0.0, 1e-9, 1e3])
def test_rounding_is_no_signal(out_std):
    assert of_layers(layer(in_std=1e-6, in_level=10.0, out_std=out_std), layer(1, name="head", is_output=True)) == []


def test_a_small_signal_on_a_large_level_is_a_signal():
    shrinking = layer(in_std=1e-2, in_level=10.0, out_std=1e-9)
    assert of_layers(shrinking, layer(1, name="head", is_output=True)) == [("ACT304", "signal")]
