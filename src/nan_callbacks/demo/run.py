"""Runs the demo: in each framework every fault in its three arms, then table, story and where the events are."""

from __future__ import annotations

import shlex
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from nan_callbacks.demo.arm import Arm, ArmResult, Recipe, TrainArm
from nan_callbacks.demo.before_the_start import perform
from nan_callbacks.demo.digits import Digits, load_digits
from nan_callbacks.demo.faults import FAULTS, Fault
from nan_callbacks.demo.frameworks import DemoFramework, load_train_arm
from nan_callbacks.demo.live_line import COLUMNS, LiveLine
from nan_callbacks.demo.story import tell
from nan_callbacks.demo.table import Outcome, render


def run_demo(
    frameworks: Sequence[DemoFramework], faults: Sequence[str], output: Path, recipe: Recipe, stream: TextIO
) -> list[Outcome]:
    """Run the demo in one framework after the other, then sum up.

    Args:
        frameworks: What to train in, as :func:`.frameworks.choose` found it.
        faults: Keys of :data:`.faults.FAULTS`, in the order in which they are shown.
        output: Folder of the events files; it is created, and files of an earlier demo are replaced.
        recipe: How to train.
        stream: Where to print.

    Returns:
        What came of each fault in each framework.

    Raises:
        NaNCallbacksError: If this process has already imported Keras on another backend.
    """
    for framework in frameworks:
        framework.prepare()
    output.mkdir(parents=True, exist_ok=True)
    digits = load_digits(recipe.seed)
    _print(stream, _introduction(digits))
    runs = [_FrameworkRun(framework, digits, output, recipe, stream) for framework in frameworks]
    outcomes = [outcome for run in runs for outcome in run.run_faults(faults)]
    _print(stream, f"\nFinal test accuracy after {outcomes[0].total_steps} steps, and what it took:\n")
    _print(stream, render(outcomes))
    _print(stream, "\n" + tell(outcomes, COLUMNS))
    _print(stream, "\nAll events of the guarded runs, one JSON object a line; to read them again:")
    for path in (run.events_path(FAULTS[name]) for run in runs for name in faults):
        if path.exists():
            _print(stream, f"  nan-callbacks events {shlex.quote(str(path))}")
    return outcomes


@dataclass
class _FrameworkRun:
    """All faults in one framework."""

    framework: DemoFramework
    digits: Digits
    output: Path
    recipe: Recipe
    stream: TextIO
    train_arm: TrainArm | None = None
    undisturbed: ArmResult | None = None

    def run_faults(self, names: Sequence[str]) -> list[Outcome]:
        title = self.framework.title
        _print(self.stream, f"\n{title}\n{'=' * len(title)}")
        _print(self.stream, "\n" + perform(self.framework, COLUMNS))
        return [self._run_fault(number, FAULTS[name]) for number, name in enumerate(names, start=1)]

    def events_path(self, fault: Fault) -> Path:
        return self.output / f"{self.framework.name}_{fault.name}.jsonl"

    def _run_fault(self, number: int, fault: Fault) -> Outcome:
        total_steps = self._arm(fault, guarded=False).batches.total_steps
        heading = f"{number}. {fault.title}: {fault.describe(total_steps)}"
        _print(self.stream, "\n" + textwrap.fill(heading, COLUMNS, subsequent_indent="   "))
        unguarded = self._train("without the guard", self._arm(fault, guarded=False))
        guarded = self._train("with the guard", self._arm(fault, guarded=True))
        return Outcome(self.framework.title, fault, unguarded, guarded, self._undisturbed_arm(), total_steps)

    def _undisturbed_arm(self) -> ArmResult:
        # The same seed and the same recipe for every fault, hence the same run: it is trained once.
        if self.undisturbed is None:
            self.undisturbed = self._train("never disturbed", self._arm(None, guarded=False))
        else:
            LiveLine(self.stream, "never disturbed", self.recipe.epochs).repeat(self.undisturbed.accuracy)
        return self.undisturbed

    def _arm(self, fault: Fault | None, *, guarded: bool) -> Arm:
        path = self.events_path(fault) if guarded and fault else None
        return Arm(recipe=self.recipe, digits=self.digits, fault=fault, guarded=guarded, events_path=path)

    def _train(self, label: str, arm: Arm) -> ArmResult:
        if arm.events_path is not None:
            arm.events_path.unlink(missing_ok=True)  # the guard appends
        line = LiveLine(self.stream, label, self.recipe.epochs)
        if self.train_arm is None:
            self.train_arm = load_train_arm(self.framework)  # seconds, during which the screen shows what comes next
        result = self.train_arm(arm, line)
        line.finish(result.accuracy)
        return result


def _introduction(digits: Digits) -> str:
    text = (
        f"A small convolutional net with BatchNorm learns scikit-learn's digits, {len(digits.train_labels)} images to "
        f"learn from, {len(digits.test_labels)} to test on. Along each line: the test accuracy in % after every "
        f"epoch, at the end the final one."
    )
    return textwrap.fill(text, COLUMNS)


def _print(stream: TextIO, text: str) -> None:
    print(text, file=stream, flush=True)
