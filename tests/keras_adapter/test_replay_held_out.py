"""The replay on cases that were written after it was built."""

import pytest

from nan_callbacks.keras.replay import replay
from tests.keras_adapter.replay_expectations import differences, tensors
from tests.keras_adapter.replay_held_out import TABLE


@pytest.mark.parametrize("case", TABLE.cases, ids=lambda case: case.name)
def test_finds_the_origin(case):
    model, batch = case.make()
    result = replay(model, tensors(batch))
    assert differences(case.here(), result.origin) == []
    assert result.reproduced == (case.here().kind != "nothing")
