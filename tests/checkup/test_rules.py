"""All rules together: order, silence, and that nothing makes them raise."""

import json
import warnings
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nan_callbacks
from nan_callbacks.checkup.facts import CheckupFacts, InputFacts, Lookup, LossFacts
from nan_callbacks.checkup.notice import CheckupReport
from nan_callbacks.checkup.rules import judge
from nan_callbacks.diagnosis.known_issues import Environment
from tests.checkup.facts import (
    classification,
    hazard,
    healthy,
    indices,
    layers,
    normal,
    numbers,
    rate,
    regression,
    said,
)

EXPLODING = rate((1.0, 10.0, 100.0, 1e3, 1e4), (1.0, 0.9, 0.8, 0.7, 0.6))


def spoiled(*shape, value=np.nan):
    values = normal(*shape)
    values.flat[3] = value
    return values


def ailing(**more):
    """Something of everything."""
    told = {
        "inputs": (numbers(spoiled(64, 8)), numbers(1e4 * normal(64, 8), name="b"), indices(np.full((64, 2), 99))),
        "losses": (classification(np.arange(64) % 9), regression(1e5 * normal(64, 1))),
        "layers": layers(4, 10.0),
        "hazards": (hazard("log"), hazard("divide", line=9)),
    }
    return healthy(**{**told, **more})


# -- the report ------------------------------------------------------------------------------------------------------


def test_a_healthy_run_has_nothing_to_say():
    report = judge(healthy())
    assert (len(report), list(report), report.notes) == (0, [], ())
    assert report.describe() == "checkup · nothing found"


def test_no_facts_are_nothing_to_say():
    assert judge(CheckupFacts()).notices == ()


def test_the_gravest_comes_first():
    found = [notice.severity for notice in judge(ailing())]
    assert len(found) > 5
    assert all(one >= other for one, other in pairwise(found))


def test_of_the_same_gravity_data_come_first():
    codes = [notice.code for notice in judge(ailing()) if notice.severity.name == "ERROR"]
    assert codes == ["DATA501", "DATA511", "DATA505"]


@given(st.sets(st.sampled_from([notice.code for notice in judge(ailing())])))
def test_ignore_removes_exactly_the_named_codes(ignored):
    everything = judge(ailing()).notices
    assert judge(ailing(), ignored).notices == tuple(each for each in everything if each.code not in ignored)


@pytest.mark.parametrize("ignored", [["data501"], ("DATA501",), {"DATA501"}, frozenset({"Data501"})])
def test_codes_may_be_written_in_any_case(ignored):
    codes = [notice.code for notice in judge(ailing(), ignored)]
    assert "DATA501" not in codes
    assert codes


def test_what_is_ignored_still_explains_the_rate():
    facts = healthy(inputs=(numbers(1e4 * normal(64, 8)),), rate=EXPLODING)
    assert said(facts, "DATA502") == []


@pytest.mark.parametrize("framework", ["lightning", "torch", "keras"])
def test_each_notice_has_a_remedy_a_title_and_words(framework):
    for notice in judge(ailing(framework=framework)):
        assert notice.remedy
        assert notice.title
        assert notice.code in notice.describe()
        assert notice.evidence
        assert json.loads(json.dumps(notice.to_dict()))["severity"] in ("error", "warning", "info")


def test_the_words_of_the_framework_are_used():
    def remedy(framework):
        return judge(healthy(framework=framework, inputs=(numbers(1e4 * normal(64, 8)),))).notices[0].remedy

    assert remedy("keras") != remedy("lightning")


def test_notes_are_handed_on():
    assert judge(healthy(notes=("no loss",))).notes == ("no loss",)


def test_a_report_without_codes_keeps_the_rest():
    report = CheckupReport(judge(ailing()).notices, ("a note",), 1.5)
    quiet = report.without(["DATA501", "data502"])
    assert (quiet.notes, quiet.seconds) == (("a note",), 1.5)
    assert {each.code for each in report} - {each.code for each in quiet} == {"DATA501", "DATA502"}


# -- one thing at a time ---------------------------------------------------------------------------------------------


def test_the_rate_is_judged_alone():
    assert said(healthy(rate=EXPLODING)) == [("OPT601", "at_start")]


@pytest.mark.parametrize(
    "upsetting",
    [
        {"inputs": (numbers(spoiled(64, 8)),)},
        {"inputs": (numbers(1e4 * normal(64, 8)),)},
        {"inputs": (numbers(spoiled(64, 8, value=1e9)),)},
        {"losses": (classification(np.arange(64) % 9),)},
        {"losses": (regression(1e5 * normal(64, 1)),)},
        {"layers": layers(4, 10.0)},
    ],
)
def test_what_upsets_the_rate_is_told_instead(upsetting):
    codes = {code for code, _ in said(healthy(rate=EXPLODING, **upsetting))}
    assert codes
    assert not codes & {"OPT601", "OPT602"}


def test_a_resumed_run_is_not_judged_as_a_start():
    assert said(healthy(rate=EXPLODING, layers=layers(4, 10.0), resumed=True)) == []
    assert said(healthy(inputs=(numbers(spoiled(64, 8)),), resumed=True)) == [("DATA501", "inputs")]


def test_known_issues_of_the_versions_are_information():
    environment = Environment(versions={"torch": "2.4.0"}, components=frozenset({"scaled_dot_product_attention"}))
    report = judge(healthy(environment=environment))
    assert "torch-sdpa-fully-masked-row-nan" in [notice.kind for notice in report]
    assert {(notice.code, notice.severity.name) for notice in report} == {("ENV701", "INFO")}
    assert all("https://" in notice.evidence[1] for notice in report)
    assert judge(healthy(environment=environment), ["ENV701"]).notices == ()


def test_no_versions_have_no_issues():
    assert said(healthy(environment=Environment(components=frozenset({"scaled_dot_product_attention"})))) == []


# -- anything --------------------------------------------------------------------------------------------------------

DTYPES = st.sampled_from(
    ["float16", "float32", "float64", "int8", "uint8", "int16", "int32", "uint32", "int64", "uint64", "bool"]
)
SHAPES = st.sampled_from(
    [
        (0,),
        (1,),
        (40,),
        (0, 3),
        (3, 0),
        (1, 1),
        (64, 1),
        (64, 9),
        (2, 300),
        (7, 3, 5),
        (33, 2, 3),
        (16, 4, 4, 3),
        (1, 0, 2),
    ]
)
WILD = (np.nan, np.inf, -np.inf, 0.0, -0.0, -1.0, 1.0, 7.0, 255.0, 5e-324, 1e-30, 65504.0, 1e30, 1.7e308, -1.7e308)


@st.composite
def any_array(draw):
    """Arrays of any dtype with a few wild numbers among ordinary ones."""
    dtype, shape = np.dtype(draw(DTYPES)), draw(SHAPES)
    generator = np.random.default_rng(draw(st.integers(0, 99)))
    scale = draw(st.sampled_from([0.0, 1e-6, 1.0, 30.0, 1e6]))
    wild = draw(st.lists(st.sampled_from(WILD), max_size=4))
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        values = (scale * generator.standard_normal(shape)).astype(dtype)
        for value in wild if values.size else ():
            values.flat[generator.integers(values.size)] = np.float64(value).astype(dtype)
        if dtype.kind in "iu" and values.size and draw(st.booleans()):
            values.flat[0] = draw(st.sampled_from([np.iinfo(dtype).min, np.iinfo(dtype).max]))
    return values


ANY_INPUT = st.builds(
    InputFacts,
    name=st.sampled_from(["", "x"]),
    values=any_array(),
    use=st.sampled_from(["numbers", "indices", "mask", "unknown"]),
    received=st.one_of(st.none(), any_array()),
    channel_axis=st.just(-1),
    lookups=st.lists(st.builds(Lookup, table=st.just("t"), rows=st.integers(0, 100), values=any_array())).map(tuple),
)


KINDS = (
    "cross_entropy", "soft_cross_entropy", "binary_cross_entropy", "squared_error", "absolute_error", "poisson",
    "kl_divergence", "hinge", "cosine", "unknown",
)  # fmt: skip


@st.composite
def any_loss(draw):
    predictions, targets = draw(any_array()), draw(any_array())
    predictions = predictions.astype(draw(st.sampled_from(["float16", "float32", "float64"])))
    kind = draw(st.sampled_from(KINDS))
    return LossFacts(
        kind=kind,
        from_logits=draw(st.sampled_from([None, True, False])),
        takes_log=draw(st.booleans()),
        predictions=predictions,
        targets=targets,
        all_targets=draw(st.sampled_from([None, targets, np.concatenate([targets, targets])])),
        class_axis=draw(st.sampled_from([-1, 0])) if kind.endswith("cross_entropy") else None,
        ignore_index=draw(st.sampled_from([None, -100, 0])),
        activation=draw(st.sampled_from(["", "linear", "softmax", "sigmoid", "tanh", "relu", "log", "log_softmax"])),
    )


@settings(max_examples=200)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@given(
    inputs=st.lists(ANY_INPUT, max_size=2),
    losses=st.lists(any_loss(), max_size=2),
    rows_read=st.integers(0, 100),
    resumed=st.booleans(),
)
def test_judging_never_raises(inputs, losses, rows_read, resumed):
    facts = healthy(inputs=tuple(inputs), losses=tuple(losses), rows_read=rows_read, resumed=resumed)
    report = judge(facts)
    assert report.describe()
    assert all(notice.to_dict() for notice in report)


@given(values=any_array(), use=st.sampled_from(["numbers", "unknown", "indices"]))
def test_nan_is_found_among_anything(values, use):
    if values.dtype.kind == "f" and np.isnan(values).any():
        assert ("DATA501", "inputs") in said(healthy(inputs=(numbers(values, use=use),), losses=()))


@given(values=any_array(), targets=any_array())
def test_judging_changes_no_array(values, targets):
    facts = healthy(inputs=(numbers(values),), losses=(regression(targets),))
    before = values.tobytes(), targets.tobytes()
    judge(facts)
    assert (values.tobytes(), targets.tobytes()) == before


def test_the_same_facts_give_the_same_report():
    assert judge(ailing()) == judge(ailing())


def test_the_room_can_be_called():
    assert callable(nan_callbacks.checkup)
    with pytest.raises(nan_callbacks.errors.NaNCallbacksError, match="model"):
        nan_callbacks.checkup(object(), [])
