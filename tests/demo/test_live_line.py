import io

from nan_callbacks.demo.live_line import LiveLine


def shown(*steps, epochs: int = 3) -> str:
    stream = io.StringIO()
    line = LiveLine(stream, "with the guard", epochs)
    for name, argument in steps:
        getattr(line, name)(argument)
    return stream.getvalue()


def test_an_arm_is_one_line():
    text = shown(("epoch", 0.5), ("epoch", 0.987), ("epoch", 1.0), ("finish", 1.0))

    assert text == "   with the guard       50  99 100   100.0 %\n"


def test_a_message_gets_lines_of_its_own_and_the_accuracies_go_on_in_their_columns():
    lines = shown(
        ("epoch", 0.5), ("say", "step 7 skipped"), ("say", "step 8 skipped"), ("epoch", 0.6), ("epoch", 0.7),
        ("finish", 0.7),
    ).splitlines()  # fmt: skip
    undisturbed = shown(("epoch", 0.5), ("epoch", 0.6), ("epoch", 0.7), ("finish", 0.7)).splitlines()[0]

    assert lines[1:3] == ["     | step 7 skipped", "     | step 8 skipped"]
    assert lines[3].lstrip() == undisturbed[len(lines[0]) :].lstrip()
    assert len(lines[3]) == len(undisturbed)


def test_a_run_that_ends_early_shows_its_result_in_the_same_column():
    early, full = shown(("epoch", 0.5), ("finish", 0.5)), shown(*[("epoch", 0.5)] * 3, ("finish", 0.5))

    assert len(early) == len(full)


def test_a_long_message_is_wrapped_within_a_hundred_columns():
    text = shown(("say", "a rather long message " * 20), ("finish", 0.5), epochs=12)

    assert max(map(len, text.splitlines())) <= 100
    assert "\r" not in text


def test_a_run_shown_before_is_not_shown_again_but_for_its_result():
    again, full = shown(("repeat", 0.99)), shown(*[("epoch", 0.5)] * 3, ("finish", 0.99))

    assert again.split() == ["with", "the", "guard", "as", "above", "99.0", "%"]
    assert len(again) == len(full)
