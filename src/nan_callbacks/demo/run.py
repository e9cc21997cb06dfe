"""Runs the demo: every fault in its three arms, then the table, the story and where the events are."""

from __future__ import annotations

import shlex
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from nan_callbacks.demo.arm import Arm, ArmResult, Recipe, TrainArm
from nan_callbacks.demo.digits import Digits, load_digits
from nan_callbacks.demo.faults import FAULTS, Fault
from nan_callbacks.demo.frameworks import FRAMEWORKS, load_train_arm
from nan_callbacks.demo.live_line import COLUMNS, LiveLine
from nan_callbacks.demo.story import tell
from nan_callbacks.demo.table import Outcome, render


def run_demo(framework: str, faults: Sequence[str], output: Path, recipe: Recipe, stream: TextIO) -> list[Outcome]:
    """Run the demo in one framework.

    Args:
        framework: A key of :data:`.frameworks.FRAMEWORKS`.
        faults: Keys of :data:`.faults.FAULTS`, in the order in which they are shown.
        output: Folder of the events files; it is created, and files of an earlier demo are replaced.
        recipe: How to train.
        stream: Where to print.

    Returns:
        What came of each fault.
    """
    train_arm = load_train_arm(framework)
    output.mkdir(parents=True, exist_ok=True)
    demo = _Demo(framework, train_arm, load_digits(recipe.seed), output, recipe, stream)
    demo.introduce()
    outcomes = [demo.run_fault(number, FAULTS[name]) for number, name in enumerate(faults, start=1)]
    demo.conclude(outcomes)
    return outcomes


@dataclass
class _Demo:
    framework: str
    train_arm: TrainArm
    digits: Digits
    output: Path
    recipe: Recipe
    stream: TextIO
    undisturbed: ArmResult | None = None

    def introduce(self) -> None:
        digits = self.digits
        introduction = (
            f"{FRAMEWORKS[self.framework].title}: a small convolutional net with BatchNorm learns "
            f"scikit-learn's digits, {len(digits.train_labels)} images to learn from, {len(digits.test_labels)} "
            f"to test on. Along each line: the test accuracy in % after every epoch, at the end the final one."
        )
        self._print(textwrap.fill(introduction, COLUMNS))

    def run_fault(self, number: int, fault: Fault) -> Outcome:
        total_steps = self._arm(fault, guarded=False).batches.total_steps
        heading = f"{number}. {fault.title}: {fault.describe(total_steps)}"
        self._print("\n" + textwrap.fill(heading, COLUMNS, subsequent_indent="   "))
        unguarded = self._train("without the guard", self._arm(fault, guarded=False))
        guarded = self._train("with the guard", self._arm(fault, guarded=True))
        return Outcome(fault, unguarded, guarded, self._undisturbed_arm(), total_steps)

    def conclude(self, outcomes: Sequence[Outcome]) -> None:
        self._print(f"\nFinal test accuracy after {outcomes[0].total_steps} steps, and what it took:\n")
        self._print(render(outcomes))
        self._print("\n" + tell(outcomes, COLUMNS))
        self._print("\nAll events of the guarded runs, one JSON object a line; to read them again:")
        for outcome in outcomes:
            path = self._events_path(outcome.fault)
            if path.exists():
                self._print(f"  nan-callbacks events {shlex.quote(str(path))}")

    def _undisturbed_arm(self) -> ArmResult:
        # The same seed and the same recipe for every fault, hence the same run: it is trained once.
        if self.undisturbed is None:
            self.undisturbed = self._train("never disturbed", self._arm(None, guarded=False))
        else:
            LiveLine(self.stream, "never disturbed", self.recipe.epochs).repeat(self.undisturbed.accuracy)
        return self.undisturbed

    def _arm(self, fault: Fault | None, *, guarded: bool) -> Arm:
        path = self._events_path(fault) if guarded and fault else None
        return Arm(recipe=self.recipe, digits=self.digits, fault=fault, guarded=guarded, events_path=path)

    def _train(self, label: str, arm: Arm) -> ArmResult:
        if arm.events_path is not None:
            arm.events_path.unlink(missing_ok=True)  # the guard appends
        line = LiveLine(self.stream, label, self.recipe.epochs)
        result = self.train_arm(arm, line)
        line.finish(result.accuracy)
        return result

    def _events_path(self, fault: Fault) -> Path:
        return self.output / f"{self.framework}_{fault.name}.jsonl"

    def _print(self, text: str) -> None:
        print(text, file=self.stream, flush=True)
