"""Targets: their form, their range, their scale, and whether there is more than one of them."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nan_callbacks.checkup.advice import with_remedy
from nan_callbacks.checkup.facts import LossFacts
from nan_callbacks.checkup.labels import examine_labels
from tests.checkup.facts import classification, normal, of_loss, regression, without_all_rows


def one_hot(labels, classes=4):
    return np.eye(classes, dtype=np.float32)[labels]


def soft(targets, predictions=None, **more):
    targets = np.asarray(targets)
    shown = normal(*targets.shape) if predictions is None else predictions
    return classification(
        targets, kind="soft_cross_entropy", predictions=shown, name="cross_entropy", **{"class_axis": 1, **more}
    )


def binary(targets, predictions=None, **more):
    targets = np.asarray(targets)
    shown = normal(*targets.shape) if predictions is None else predictions
    return classification(targets, kind="binary_cross_entropy", predictions=shown, class_axis=None, name="bce", **more)


LABELS = np.arange(64) % 4


# -- healthy ---------------------------------------------------------------------------------------------------------


@given(rows=st.integers(1, 200), classes=st.integers(2, 30), dtype=st.sampled_from(["int8", "uint8", "int64"]))
def test_nothing_about_labels_within_their_classes(rows, classes, dtype):
    assert of_loss(classification((np.arange(rows) % classes).astype(dtype), classes)) == []


@given(
    shape=st.sampled_from([(1,), (64,), (64, 1), (64, 5), (8, 3, 4)]), scale=st.floats(0.1, 10), shift=st.floats(-9, 9)
)
def test_nothing_about_standardised_regression(shape, scale, shift):
    assert of_loss(regression((scale * normal(*shape) + shift).astype(np.float32))) == []


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_one_hot_and_smoothed_targets_are_healthy(smoothing):
    assert of_loss(soft(one_hot(LABELS) * (1 - smoothing) + smoothing / 4)) == []
    assert of_loss(binary((LABELS > 1)[:, None] * (1 - smoothing) + smoothing / 2)) == []


@pytest.mark.parametrize("loss", [classification(), regression(), soft(one_hot(LABELS)), binary(LABELS[:, None] > 1)])
def test_one_batch_is_enough(loss):
    assert of_loss(without_all_rows(loss)) == []


@pytest.mark.parametrize("kind", ["cross_entropy", "soft_cross_entropy", "binary_cross_entropy", "squared_error"])
@pytest.mark.parametrize("shape", [(0,), (0, 4)])
def test_nothing_about_no_targets(kind, shape):
    empty = np.empty(shape, np.float32)
    assert of_loss(regression(empty, kind=kind, predictions=empty, class_axis=-1)) == []


@pytest.mark.parametrize("values", [np.array(["cat", "dog"] * 32), np.array([None, 3], object)])
def test_targets_that_are_no_numbers_are_left_alone(values):
    assert of_loss(classification(values)) == []


# -- NaN -------------------------------------------------------------------------------------------------------------


@given(
    shape=st.sampled_from([(1,), (64,), (64, 1), (64, 5)]),
    value=st.sampled_from([np.nan, np.inf, -np.inf]),
    dtype=st.sampled_from(["float16", "float32", "float64"]),
    place=st.floats(0, 1, exclude_max=True),
)
def test_a_spoiled_target_is_always_found(shape, value, dtype, place):
    values = normal(*shape).astype(dtype)
    values.flat[int(place * values.size)] = value
    assert ("DATA501", "targets") in of_loss(regression(values))


def test_the_spoiled_row_is_named():
    values = normal(64, 2)
    values[9, 1] = np.nan
    (notice,) = examine_labels((regression(values),))
    assert notice.where == "targets of mse_loss"
    assert "row 9" in notice.evidence[0]


def test_nothing_but_nan_is_told_once():
    assert of_loss(regression(np.full((64, 1), np.nan))) == [("DATA501", "targets")]


def test_nothing_but_nan_is_no_label():
    assert of_loss(soft(np.full((64, 4), np.nan))) == [("DATA501", "targets")]


# -- form ------------------------------------------------------------------------------------------------------------


def test_columns_beside_vectors_are_broadcast():
    values = normal(64)
    assert of_loss(regression(values, predictions=values[:, None])) == [("DATA508", "broadcast")]
    assert of_loss(regression(values[:, None], predictions=values)) == [("DATA508", "broadcast")]


def test_one_row_cannot_be_broadcast_wrongly():
    assert of_loss(regression(normal(1), predictions=normal(1, 1))) == []


def test_one_number_for_several_outputs_is_compared_with_each():
    assert of_loss(regression(normal(64, 1), predictions=normal(64, 3))) == [("DATA508", "broadcast")]
    told = of_loss(regression(LABELS[:, None], predictions=normal(64, 4)))
    assert told == [("DATA508", "broadcast")]


@pytest.mark.parametrize("shape", [(), (3,), (1, 3)])
def test_one_row_of_targets_for_all_rows_is_meant(shape):
    assert of_loss(regression(np.full(shape, 0.5, np.float32), predictions=normal(64, 3))) == []


def test_shapes_that_do_not_fit_are_the_step_s_own_error():
    assert of_loss(regression(normal(64, 2), predictions=normal(64, 3))) == []


def test_one_hot_targets_where_indices_are_expected():
    loss = classification(one_hot(LABELS), predictions=normal(64, 4))
    assert of_loss(loss) == [("DATA508", "one_hot")]


@pytest.mark.parametrize("targets", [LABELS, LABELS[:, None], LABELS.astype(np.float32)])
def test_indices_where_one_number_per_class_is_expected(targets):
    assert of_loss(soft(targets, predictions=normal(64, 4))) == [("DATA508", "indices")]


def test_scores_of_a_regression_where_classes_are_expected():
    """Of floats torch's cross entropy expects one per class; the step raises, the checkup must not."""
    targets = np.random.default_rng(0).random(64).astype(np.float32)
    of_loss(soft(targets, predictions=normal(64, 4)))


def test_a_map_of_classes_is_healthy():
    targets = np.random.default_rng(0).integers(0, 4, (8, 6, 6))
    assert of_loss(classification(targets, predictions=normal(8, 4, 6, 6), class_axis=1)) == []
    assert of_loss(classification(targets, predictions=normal(8, 6, 6, 4), class_axis=-1)) == []


# -- range -----------------------------------------------------------------------------------------------------------


@given(classes=st.integers(2, 30), beyond=st.integers(0, 300), below=st.booleans(), row=st.integers(0, 63))
def test_a_label_beyond_its_classes_is_always_found(classes, beyond, below, row):
    targets = np.arange(64) % classes
    targets[row] = -1 - beyond if below else classes + beyond
    assert of_loss(classification(targets, classes)) == [("DATA505", "range")]


@pytest.mark.parametrize("value", [np.iinfo(np.int64).min, np.iinfo(np.int64).max])
def test_extreme_labels_are_told(value):
    assert of_loss(classification([0, 1, 2, value])) == [("DATA505", "range")]


def test_labels_that_begin_with_one():
    assert of_loss(classification(LABELS + 1)) == [("DATA505", "range")]


def test_ignored_labels_are_meant():
    targets = np.where(LABELS == 3, -100, LABELS)
    assert of_loss(classification(targets, ignore_index=-100)) == []
    assert of_loss(classification(targets)) == [("DATA505", "range")]
    assert of_loss(classification(np.full(64, -100), ignore_index=-100)) == []


def test_a_bad_label_in_a_later_batch_is_found():
    loss = classification(LABELS)
    assert of_loss(replace(loss, all_targets=np.append(LABELS, 9))) == [("DATA505", "range")]


@pytest.mark.parametrize("targets", [2.0 * LABELS[:, None], np.where(LABELS > 1, 1.0, -1.0)[:, None]])
def test_targets_that_are_no_probabilities(targets):
    assert of_loss(binary(targets)) == [("DATA505", "no_probability")]


@pytest.mark.parametrize("framework", ["torch", "lightning", "keras"])
def test_a_remedy_fits_what_is_wrong_with_the_range(framework):
    def remedy(loss):
        return with_remedy(next(examine_labels((loss,))), framework).remedy

    assert "255" in remedy(binary(255.0 * (LABELS[:, None] > 1)))
    assert "last activation" in remedy(regression(normal(64, 1), activation="sigmoid"))
    assert "count classes from 0" in remedy(classification(LABELS + 1))


def test_counts_that_stand_for_a_missing_one():
    counts = np.random.default_rng(0).poisson(4, (256, 1))
    assert of_loss(regression(counts, kind="poisson", all_targets=counts)) == []
    counts[[3, 77]] = 999999
    assert of_loss(regression(counts, kind="poisson", all_targets=counts)) == [("DATA504", "sentinel_label")]


def test_gaps_that_the_loss_leaves_out_are_meant():
    targets = normal(64, 2)
    targets[::3, 1] = np.nan
    everywhere = regression(targets, all_targets=targets)
    assert [each.code for each in examine_labels((everywhere,))] == ["DATA501"]
    assert list(examine_labels((everywhere,), sound=True)) == []
    elsewhere = replace(everywhere, targets=normal(32, 2))
    assert [each.code for each in examine_labels((elsewhere,), sound=True)] == ["DATA501"]


def test_labels_of_plus_and_minus_one_are_known():
    (notice,) = examine_labels((binary(np.where(LABELS > 1, 1, -1)[:, None]),))
    assert "hinge" in notice.evidence[0]


def test_class_probabilities_add_up_to_one():
    assert of_loss(soft(2 * one_hot(LABELS) / 4)) == [("DATA505", "range")]
    assert ("DATA505", "range") in of_loss(soft(np.full((64, 4), 0.9, np.float32)))


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_rounding_of_half_precision_is_forgiven(dtype):
    drawn = np.random.default_rng(0).dirichlet(np.ones(10), 64).astype(dtype)
    assert of_loss(soft(drawn, classes=10)) == []


def test_counts_are_not_negative():
    assert of_loss(regression(np.arange(64)[:, None], kind="poisson")) == []
    assert of_loss(regression(np.arange(64)[:, None] - 1, kind="poisson")) == [("DATA505", "range")]


@pytest.mark.parametrize(
    ("activation", "fitting", "beyond"),
    [
        ("sigmoid", [0.0, 1.0], [0.5, 1.5]),
        ("softmax", [0.0, 1.0], [-0.5, 0.5]),
        ("tanh", [-1.0, 1.0], [-1.5, 0.0]),
        ("relu", [0.0, 20.0], [-1.0, 1.0]),
        ("softplus", [0.1, 20.0], [-1.0, 1.0]),
        ("log_softmax", [-20.0, 0.0], [-1.0, 1.0]),
        ("linear", [-20.0, 20.0], None),
        ("", [-20.0, 20.0], None),
    ],
)
@pytest.mark.parametrize("kind", ["squared_error", "absolute_error"])
def test_targets_that_the_last_activation_cannot_reach(activation, fitting, beyond, kind):
    def of(values):
        return of_loss(regression(np.resize(values, (64, 1)).astype(np.float32), activation=activation, kind=kind))

    assert of(fitting) == []
    if beyond is not None:
        assert of(beyond) == [("DATA505", "beyond_activation")]


# -- scale -----------------------------------------------------------------------------------------------------------


@given(factor=st.sampled_from([100.0, 1e6, 1e30, 1e300]), shift=st.sampled_from([0.0, 50.0]))
def test_large_targets_are_unscaled(factor, shift):
    values = factor * (normal(64, 1).astype(np.float64) + shift)
    assert of_loss(regression(values, predictions=normal(64, 1))) == [("DATA509", "scale")]


def test_a_model_that_already_returns_that_scale_is_healthy():
    values = 1000 * normal(64, 1)
    assert of_loss(regression(values, predictions=values + 300)) == []


def test_columns_of_targets_of_different_scales():
    values = normal(64, 2) * np.array([1e-3, 20], np.float32)
    assert of_loss(regression(values)) == [("DATA509", "target_scales")]


def test_one_wild_target_is_no_scale():
    values = normal(400, 1)
    values[3] = 1e6
    assert of_loss(regression(values)) == []
    assert of_loss(replace(regression(values), all_targets=values)) == [("DATA504", "outlier")]


# -- classes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("label", [0, 3])
def test_a_single_class_is_told(label):
    labels = np.full(64, label)
    single = [("DATA510", "single_class")]
    assert of_loss(classification(labels)) == single
    assert of_loss(soft(one_hot(labels))) == single
    assert of_loss(binary(np.full((64, 1), label > 0))) == single


def test_a_single_class_in_a_small_batch_says_nothing():
    assert of_loss(classification(np.zeros(31, int))) == []


def test_a_single_class_in_one_batch_of_several_is_healthy():
    loss = classification(np.zeros(64, int))
    assert of_loss(replace(loss, all_targets=np.append(np.zeros(64, int), 1))) == []


def test_rare_labels_of_many_are_healthy():
    assert of_loss(binary(np.zeros((64, 6)))) == []


# -- forms that must not raise ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["cross_entropy", "soft_cross_entropy", "binary_cross_entropy", "squared_error"])
@pytest.mark.parametrize("target", [1, 0.5, np.nan])
def test_a_loss_of_one_sample_without_an_axis_of_rows_does_no_harm(kind, target):
    shape = (4,) if kind.endswith("cross_entropy") and kind[0] != "b" else ()
    axis = 0 if shape else None
    loss = classification(np.array(target), kind=kind, predictions=normal(*shape), class_axis=axis, all_targets=None)
    told = of_loss(loss)
    assert (("DATA501", "targets") in told) == bool(np.isnan(target))


def test_the_number_of_a_class_spread_over_all_outputs_is_another_form():
    labels = np.random.default_rng(0).integers(0, 10, 64)
    spread = np.repeat(labels[:, None], 10, axis=1).astype("float32")
    loss = LossFacts(kind="squared_error", predictions=np.full((64, 10), 0.1), targets=spread, activation="softmax")

    assert [(each.code, each.kind) for each in examine_labels((loss,))] == [("DATA508", "repeated")]


@pytest.mark.parametrize(
    "targets",
    [
        np.zeros((64, 10), "float32"),  # what an adversary is asked for
        np.random.default_rng(0).normal(size=(64, 10)).astype("float32"),
        np.eye(10, dtype="float32")[np.arange(64) % 10],
    ],
    ids=["zeros", "numbers", "one-hot rows"],
)
def test_targets_of_their_own_for_each_output_are_not(targets):
    loss = LossFacts(kind="squared_error", predictions=np.full((64, 10), 0.1), targets=targets)

    assert "DATA508" not in [each.code for each in examine_labels((loss,))]


@pytest.mark.parametrize(("predicted", "given", "is_told"), [
    ((8,), (6, 8), False), ((1, 8), (6, 8), False), ((8,), (8, 1), True), ((8, 1), (8,), True), ((6, 8), (8,), False),
])  # fmt: skip
def test_samples_beside_a_distribution_are_told_only_if_all_meet_all(predicted, given, is_told):
    likelihood = regression(normal(*given), kind="difference", name="sub", predictions=normal(*predicted, seed=1))
    told = [("DATA508", "broadcast")] if is_told else []
    assert of_loss(replace(likelihood, of_distribution=True)) == told
