import numpy as np

from nan_callbacks.demo.digits import Batches, load_digits
from nan_callbacks.demo.faults import FAULTS


def batches(fault: str | None = None, seed: int = 0) -> Batches:
    return Batches(load_digits(seed), batch_size=32, epochs=5, seed=seed, fault=FAULTS[fault] if fault else None)


def test_no_image_is_in_both_parts_and_none_is_lost():
    digits = load_digits(seed=0)

    assert len(digits.train_labels) + len(digits.test_labels) == 1797
    assert len(digits.test_labels) == 450
    assert digits.train_images.min() == 0.0
    assert digits.train_images.max() == 1.0
    assert {len(np.unique(labels)) for labels in (digits.train_labels, digits.test_labels)} == {10}


def test_an_epoch_shows_every_image_at_most_once_and_epochs_differ_in_order():
    stream = batches()
    first, second = (np.concatenate([labels for _, labels in stream.epoch(epoch)]) for epoch in (0, 1))
    images = np.concatenate([images for images, _ in stream.epoch(0)])

    assert len(first) == stream.per_epoch * 32
    assert len(np.unique(images, axis=0)) == len(np.unique(stream.digits.train_images, axis=0)) - 3
    assert not np.array_equal(first, second)


def test_the_same_epoch_can_be_read_again():
    stream = batches("nan_rows")
    once, again = list(stream.epoch(1)), list(stream.epoch(1))

    for (images, labels), (same_images, same_labels) in zip(once, again, strict=True):
        np.testing.assert_array_equal(images, same_images)
        np.testing.assert_array_equal(labels, same_labels)


def test_a_fault_changes_the_batches_it_hits_and_no_other():
    clean, faulty = batches(), batches("scaled_samples")
    changed = []
    for epoch in range(clean.epochs):
        pairs = zip(clean.epoch(epoch), faulty.epoch(epoch), strict=True)
        for index, ((images, labels), (seen, seen_labels)) in enumerate(pairs):
            np.testing.assert_array_equal(labels, seen_labels)
            if not np.array_equal(images, seen):
                changed.append(epoch * clean.per_epoch + index)

    assert tuple(changed) == FAULTS["scaled_samples"].steps(clean.total_steps)
