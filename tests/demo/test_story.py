from nan_callbacks.demo.story import tell
from tests.demo.outcomes import incident, outcome, rollback


def test_the_story_quotes_the_first_incident_and_the_actions():
    events = [incident(203), incident(204), rollback(205, 150)]
    story = tell([outcome(events=events, incidents=2, skipped_steps=3, rollbacks=1)], width=200)

    assert story.splitlines() == [
        "Rows with NaN: 10.0 % without the guard, 98.0 % with it, -1.0 points from the undisturbed run.",
        f"  first noticed: {events[0]['message']}",
        f"  then: {events[2]['message']}",
    ]


def test_a_long_list_of_actions_is_cut_short_and_says_so():
    events = [incident(1), *(rollback(step, 0) for step in range(2, 9))]
    story = tell([outcome(events=events, incidents=1, rollbacks=7)], width=200)

    assert story.count("  then: ") == 4
    assert story.endswith("and so on: 7 actions in all")


def test_a_guard_that_noticed_nothing_is_not_praised():
    assert tell([outcome()], 100) == "Rows with NaN: the guard noticed nothing; its run ended at 98.0 %."


def test_a_guard_that_gave_up_says_why():
    story = tell([outcome(stopped=True, stop_reason="3 rollback(s) brought no progress", incidents=1)], 100)

    assert story.startswith("Rows with NaN: the guard gave up: 3 rollback(s) brought no progress.")


def test_the_story_keeps_to_its_width():
    events = [incident(203), rollback(205, 150)]

    assert max(map(len, tell([outcome(events=events, incidents=1)], width=60).splitlines())) <= 60


def test_two_frameworks_are_told_under_their_names():
    parts = tell([outcome(), outcome(framework="Keras on JAX")], 100).split("\n\n")

    assert parts[0::2] == ["Lightning:", "Keras on JAX:"]
    assert parts[1] == parts[3] == tell([outcome()], 100)
