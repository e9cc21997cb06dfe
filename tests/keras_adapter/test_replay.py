"""The replay names the operation, the layer and the line that made the first NaN or Inf."""

import pytest

from nan_callbacks.keras.replay import replay
from tests.keras_adapter.replay_cases import TABLE
from tests.keras_adapter.replay_expectations import differences, tensors


@pytest.mark.parametrize("case", TABLE.cases, ids=lambda case: case.name)
def test_finds_the_origin(case):
    model, batch = case.make()
    result = replay(model, tensors(batch))
    assert differences(case.here(), result.origin) == []
    assert result.reproduced == (case.here().kind != "nothing")
