"""Words of others in sentences of ours."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nan_callbacks.core.sentences import LONGEST_MESSAGE, shortened


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
