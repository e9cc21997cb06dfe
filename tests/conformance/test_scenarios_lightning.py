"""The table of scenarios on Lightning."""

import pytest

from tests.conformance.expectations import discrepancies, dropped_at_their_limits
from tests.conformance.lightning_runner import run
from tests.conformance.scenarios import SCENARIOS


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_table_holds(name: str):
    assert discrepancies(SCENARIOS[name], run) == {}


def test_a_step_exactly_at_its_limit_passes():
    assert dropped_at_their_limits(SCENARIOS["a healthy network"], run) == []
