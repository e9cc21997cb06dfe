"""Ledger: when a snapshot is due, when it has earned trust, and which one a rollback goes to."""

import json

from nan_callbacks.core.ledger import SLOTS, Ledger


def ledger_after(steps: int, *, every: int = 10, probation: int = 6) -> Ledger:
    """A ledger after some clean steps, every due snapshot taken."""
    ledger = Ledger(every, probation)
    for step in range(steps):
        if ledger.due(step, suspicious=False):
            ledger.record(step, {"taken_before": step})
        ledger.clean_step()
    return ledger


def target_step(ledger: Ledger) -> int:
    entry = ledger.target()
    assert entry is not None
    return entry.step


def test_the_state_that_the_user_began_with_is_trusted_at_once():
    ledger = Ledger(10, 6)
    assert ledger.target() is None
    assert ledger.due(3, suspicious=True)

    ledger.record(3, {})

    assert target_step(ledger) == 3
    assert not ledger.due(4, suspicious=False)


def test_a_later_snapshot_is_trusted_after_its_probation():
    assert target_step(ledger_after(15)) == 0
    assert target_step(ledger_after(16)) == 10


def test_the_target_is_always_the_newest_trusted_snapshot():
    assert [target_step(ledger_after(steps)) for steps in (20, 26, 30, 36)] == [10, 20, 20, 30]


def test_a_snapshot_never_overwrites_the_trusted_one():
    ledger = Ledger(10, 6)
    for step in range(200):
        if ledger.due(step, suspicious=False):
            trusted = ledger.target()
            slot = ledger.record(step, {})
            assert slot in range(SLOTS)
            assert trusted is None or slot != trusted.slot
        ledger.clean_step()


def test_no_snapshot_is_taken_while_another_is_on_probation():
    ledger = ledger_after(11, every=10, probation=50)

    assert not any(ledger.due(step, suspicious=False) for step in range(11, 60))


def test_no_snapshot_is_taken_of_a_suspicious_state():
    ledger = ledger_after(9)

    assert not ledger.due(10, suspicious=True)
    assert ledger.due(10, suspicious=False)


def test_a_discarded_snapshot_is_never_a_target():
    ledger = ledger_after(13)

    ledger.choose(ledger.target())
    for _ in range(10):
        ledger.clean_step()

    assert target_step(ledger) == 0


def test_the_target_brings_the_history_of_its_step():
    entry = ledger_after(16).target()

    assert entry is not None
    assert entry.detectors == {"taken_before": 10}


def test_a_restored_ledger_goes_on_like_the_old_one():
    old = ledger_after(13)
    new = Ledger(10, 6)
    new.load_state_dict(json.loads(json.dumps(old.state_dict())))

    for step in range(13, 60):
        assert old.due(step, suspicious=False) == new.due(step, suspicious=False)
        if old.due(step, suspicious=False):
            assert old.record(step, {}) == new.record(step, {})
        old.clean_step()
        new.clean_step()
        assert old.target() == new.target()


def test_without_snapshots_the_next_one_is_a_beginning():
    ledger = ledger_after(33)

    ledger.forget()

    assert ledger.target() is None
    assert ledger.due(33, suspicious=True)
    ledger.record(33, {})
    assert target_step(ledger) == 33
