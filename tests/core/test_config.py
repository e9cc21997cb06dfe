"""GuardConfig: every value that cannot work is refused, with what was expected, what was received, and what to do."""

import dataclasses
import inspect
import math
import typing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nan_callbacks.core import GuardConfig
from nan_callbacks.errors import ConfigurationError, NaNCallbacksError

WORDS = {
    "on_non_finite": ("observe", "skip_step", "stop"),
    "on_spike": ("observe", "skip_step", "stop"),
    "on_divergence": ("observe", "rollback", "stop"),
    "snapshot_memory": ("auto", "device", "host"),
    "on_give_up": ("stop", "raise"),
}
SMALLEST = {
    "window_size": 16,
    "warmup_steps": 2,
    "max_consecutive_skips": 1,
    "max_rollbacks": 0,
    "lr_recovery_steps": 1,
    "snapshot_every_n_steps": 1,
    "probation_steps": 1,
}
RANGES = {
    "z_threshold": "a number > 0",
    "min_ratio": "a number > 1",
    "max_skip_fraction": "a number > 0 and <= 1",
    "lr_factor": "a number > 0 and < 1",
}
OUTSIDE = {
    "z_threshold": [0.0, -3.0],
    "min_ratio": [1.0, 0.5, -10.0],
    "max_skip_fraction": [0.0, -0.1, 1.01],
    "lr_factor": [0.0, 1.0, -0.5, 2.0],
}
NOT_A_WORD = ["explode", "Stop", "", 1, True, ["stop"], b"stop"]
NOT_WHOLE = [True, False, 1.0, 20.5, "20", math.nan, [20]]
NOT_A_NUMBER = [True, "8", None, math.nan, math.inf, -math.inf, 10**400, 1 + 0j, [8.0]]

WRONG = [
    *((name, value, f"one of {', '.join(map(repr, WORDS[name]))}") for name in WORDS for value in [*NOT_A_WORD, None]),
    *((name, value, f"a whole number >= {SMALLEST[name]}") for name in SMALLEST for value in NOT_WHOLE),
    *((name, SMALLEST[name] - 1, f"a whole number >= {SMALLEST[name]}") for name in SMALLEST),
    *((name, -7, f"a whole number >= {SMALLEST[name]}") for name in SMALLEST),
    *((name, None, f"a whole number >= {SMALLEST[name]}") for name in SMALLEST if name != "lr_recovery_steps"),
    *((name, value, RANGES[name]) for name in RANGES for value in [*NOT_A_NUMBER, *OUTSIDE[name]]),
    ("on_divergence", "skip_step", "one of 'observe', 'rollback', 'stop'"),
    ("on_spike", "rollback", "one of 'observe', 'skip_step', 'stop'"),
]


@pytest.mark.parametrize(("name", "value", "expected"), WRONG, ids=lambda part: repr(part)[:24])
def test_a_wrong_value_is_refused_with_what_was_expected_received_and_what_to_do(name, value, expected):
    with pytest.raises(ConfigurationError) as caught:
        GuardConfig(**{name: value})

    sentence, _, remedy = str(caught.value).partition(f", received {value!r}. ")
    assert sentence == f"`{name}` must be {expected}"
    assert len(remedy.split()) >= 4
    assert remedy.endswith(".")


def test_every_setting_has_wrong_values_in_the_table():
    assert {name for name, _, _ in WRONG} == set(GuardConfig.names())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"z_threshold": -3.0},
            "`z_threshold` must be a number > 0, received -3.0. 8 is usual; larger is more tolerant.",
        ),
        (
            {"on_spike": "explode"},
            "`on_spike` must be one of 'observe', 'skip_step', 'stop', received 'explode'. Choose one of these words.",
        ),
        (
            {"lr_factor": 2},
            "`lr_factor` must be a number > 0 and < 1, received 2. 0.5 halves the learning rate.",
        ),
        (
            {"max_rollbacks": True},
            "`max_rollbacks` must be a whole number >= 0, received True. "
            "4 is usual; 0 means: give up instead of the first rollback.",
        ),
        (
            {"window_size": 32, "warmup_steps": 33},
            "`warmup_steps` must be <= window_size (32), received 33. Enlarge `window_size` or shorten `warmup_steps`.",
        ),
    ],
)
def test_the_message_reads(settings: dict, message: str):
    with pytest.raises(ConfigurationError) as caught:
        GuardConfig(**settings)

    assert str(caught.value) == message


@pytest.mark.parametrize("base", [NaNCallbacksError, ValueError])
def test_a_refusal_can_be_caught_as(base: type[Exception]):
    with pytest.raises(base):
        GuardConfig(lr_factor=0)


def test_a_warm_up_as_long_as_the_window_is_allowed():
    assert GuardConfig(window_size=32, warmup_steps=32).warmup_steps == 32


@pytest.mark.parametrize(("name", "value"), [(name, word) for name, words in WORDS.items() for word in words])
def test_every_word_of_a_setting_is_allowed(name: str, value: str):
    assert getattr(GuardConfig(**{name: value}), name) == value


@pytest.mark.parametrize("name", [name for name in SMALLEST if name != "window_size"])
def test_the_smallest_whole_number_is_allowed(name: str):
    assert getattr(GuardConfig(**{name: SMALLEST[name]}), name) == SMALLEST[name]


def test_the_smallest_window_is_allowed():
    assert GuardConfig(window_size=16, warmup_steps=16).window_size == 16


@given(value=st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.binary()))
def test_whatever_is_given_is_taken_or_refused_properly(value: object):
    for name in GuardConfig.names():
        try:
            taken = getattr(GuardConfig(**{name: value}), name)
        except ConfigurationError:
            continue
        assert taken is value


def test_settings_are_given_by_name_and_never_changed():
    assert all(
        parameter.kind is inspect.Parameter.KEYWORD_ONLY
        for parameter in inspect.signature(GuardConfig).parameters.values()
    )
    with pytest.raises(dataclasses.FrozenInstanceError):
        GuardConfig().lr_factor = 0.1  # type: ignore[misc]


def test_the_words_of_the_annotations_are_the_words_that_are_checked():
    hints = typing.get_type_hints(GuardConfig)

    assert {name: typing.get_args(hints[name]) for name in WORDS} == WORDS
