"""Words of others in sentences of ours."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nan_callbacks.core.sentences import LONGEST_MESSAGE, describe, shortened


@pytest.mark.parametrize(
    ("message", "told"),
    [
        ("", ""),
        ("plain", "plain"),
        ("two\n  lines\t\r\n", "two lines"),
        ("\x1b[1mbold\x1b[0m and \x1b[38;5;196mred\x1b[m", "bold and red"),
        ("x" * 201, "x" * 198 + " …"),
    ],
)
def test_messages_of_others_fit_into_a_line(message, told):
    assert shortened(message) == told


@given(st.text(max_size=500))
def test_any_message_fits_into_a_line(message):
    told = shortened(message)
    assert len(told) <= LONGEST_MESSAGE
    assert len(told.splitlines()) <= 1


def test_a_level_that_should_have_fallen_is_told_as_that():
    """Its limit may lie below where it was, and would read like an error."""
    about = {"event": "incident", "code": "LOSS402", "title": "divergence", "step": 7, "batch_index": 7, "epoch": 0}
    told = describe({**about, "quantity": "loss level", "value": 0.44, "limit": 0.333, "detail": "it was 0.445"})
    assert "loss level 0.44, should be below 0.333 by now · it was 0.445" in told
    assert "limit" not in told
