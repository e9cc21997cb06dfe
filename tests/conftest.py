"""For all tests: nothing that they assert depends on how fast the machine is."""

import pytest

from nan_callbacks.diagnosis import desk, rate_trials
from nan_callbacks.diagnosis.bench import Budget

UNHURRIED = 600.0
"""Seconds. A machine that stood still for half a minute has been seen, and a cut was not tried out there."""


@pytest.fixture(autouse=True)
def trials_may_take_their_time(monkeypatch):
    monkeypatch.setattr(rate_trials, "SECONDS", UNHURRIED)
    for name in ("ONE_DIAGNOSIS", "UNASKED"):
        monkeypatch.setattr(desk, name, Budget(steps=getattr(desk, name).steps, seconds=UNHURRIED))
