"""Equal number streams through Lightning's session and through the bare core: equal events, limits and decisions."""

import pytest

from tests.conformance.bare_core import BareCore
from tests.conformance.lightning_runner import run
from tests.conformance.lightning_seam import LightningSeam
from tests.conformance.record import story_of
from tests.conformance.scenarios import REPLAYABLE, SCENARIOS
from tests.conformance.streams import STREAMS, recorded


@pytest.mark.parametrize("name", STREAMS)
def test_lightning_decides_as_the_core_does(name: str):
    expected = BareCore(STREAMS[name]).play()

    played = LightningSeam(STREAMS[name]).play()

    assert played.lines() == expected.lines()
    assert played.limits == expected.limits
    assert repr(played.decisions) == repr(expected.decisions)
    assert played.snapshots == expected.snapshots


def test_the_streams_meet_everything_that_the_core_can_say():
    """Or equality would say little."""
    events = [event for stream in STREAMS.values() for event in BareCore(stream).play().events]

    assert {event["event"] for event in events} == {
        "incident",
        "rollback",
        "reduce_lr",
        "level_accepted",
        "lr_recovered",
        "stop",
    }
    assert {event.get("code") for event in events} - {None} == {
        "NAN101",
        "NAN102",
        "NAN103",
        "GRAD201",
        "LOSS401",
        "LOSS402",
        "ACT301",
        "OPT603",
    }


@pytest.mark.parametrize("name", REPLAYABLE)
def test_a_recorded_run_is_judged_again_as_it_was(name: str):
    scenario = SCENARIOS[name]
    stream = recorded(run(scenario).observations, scenario.settings)

    assert story_of(LightningSeam(stream).play().events) == list(scenario.story)
    assert story_of(BareCore(stream).play().events) == list(scenario.story)
