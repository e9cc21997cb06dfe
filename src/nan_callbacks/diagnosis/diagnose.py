"""From evidence to a diagnosis: hypotheses are ranked, then tried in the laboratory, the deepest cause first."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from nan_callbacks.diagnosis.bench import Bench, Result
from nan_callbacks.diagnosis.bench import Budget as Budget
from nan_callbacks.diagnosis.catalogue import entry
from nan_callbacks.diagnosis.diagnosis import Confidence, Diagnosis, Tried, Verdict
from nan_callbacks.diagnosis.evidence import Evidence
from nan_callbacks.diagnosis.experiments import Experiment
from nan_callbacks.diagnosis.goal import Kind, goal_of
from nan_callbacks.diagnosis.hypotheses import Hypothesis, hypothesise
from nan_callbacks.diagnosis.hypotheses.gradients import RECENT_NORMS
from nan_callbacks.diagnosis.hypotheses.idle import is_idle
from nan_callbacks.diagnosis.lab import Lab
from nan_callbacks.diagnosis.origin import OriginKind
from nan_callbacks.diagnosis.reproduction import Reproduction, is_unasked, reproduce, standstill
from nan_callbacks.diagnosis.told_at_once import told_at_once

CONVINCING = 0.7
"""Scores above this stand for measured evidence against one cause; up to it, for circumstances that fit several."""

UNFOUNDED = 0.3
"""Scores up to this stand for a cause that is tried in case, though nothing speaks for it; named only if confirmed."""

NEVER_UNASKED = frozenset({"OPT608", "DATA510"})
"""Causes that a healthy run may show as well: a layer that is frozen on purpose, classes of which one is rare. A run
of which nothing is trained at all is none."""

_ORDER = list(Confidence)


@dataclass(frozen=True, kw_only=True)
class _Tested:
    """A hypothesis and what the experiments said."""

    hypothesis: Hypothesis
    result: Result = Result.UNTESTED
    experiments: tuple[Experiment, ...] = ()
    """Those that decided."""


def diagnose(evidence: Evidence, lab: Lab | None, budget: Budget | None = None) -> Diagnosis:
    """Name the cause of an incident.

    Args:
        evidence: What is known before anything is tried.
        lab: Where suspicions are tried out; None: nothing is tried and nothing can be confirmed.
        budget: What the trials may cost; the default budget if None.

    Returns:
        The verdicts, the best first.
    """
    certain = told_at_once(evidence)
    if certain is not None:
        verdict = _verdict(certain.code, Confidence.CONFIRMED, certain.because, (), evidence)
        return _diagnosis(evidence, None, (replace(verdict, remedies=certain.remedies or verdict.remedies),))
    hypotheses = hypothesise(evidence)
    if lab is None:
        untested = [_Tested(hypothesis=hypothesis) for hypothesis in hypotheses]
        return _diagnosis(evidence, None, _verdicts(untested, evidence, None), "Nothing could be tried out.")
    bench = Bench(lab, goal_of(evidence), budget or Budget())
    if bench.goal.kind is Kind.STALL:
        return _without_a_failed_step(bench, evidence, hypotheses)
    again = reproduce(bench, evidence)
    if not again.happened:
        return _not_reproduced(bench, evidence, hypotheses, again)
    note = "" if bench.failed_again() else "The failure could not be brought back in the laboratory."
    return _diagnosis(evidence, bench, _verdicts(_test(bench, hypotheses), evidence, bench), note)


def _without_a_failed_step(bench: Bench, evidence: Evidence, hypotheses: Sequence[Hypothesis]) -> Diagnosis:
    state = standstill(bench, evidence)
    if state.note:  # a loss may fall for a while although the program is wrong
        certain = {concern.code for concern in evidence.concerns if concern.certain}
        certain |= {"DATA510", "LOSS403"}  # one label for all is soon learnt, and a softmax of a softmax falls as well
        seen = [each for each in hypotheses if each.settles and (each.code in certain or state.slow)]
        wrong = [_Tested(hypothesis=each) for each in seen]
        return _diagnosis(evidence, bench, _verdicts(wrong, evidence, None), "" if wrong else state.note)
    # A model that is better than fresh weights may simply have learnt what there is to learn: then only what was seen
    # in its layers speaks against it.
    if is_unasked(evidence):
        tested = _test(bench, hypotheses) if state.untrained else []
        verdicts = _verdicts(tested, evidence, bench)
        return _diagnosis(evidence, bench, verdicts if verdicts and _is_certain(verdicts[0], tested, evidence) else ())
    suspects = [hypothesis for hypothesis in hypotheses if state.untrained or hypothesis.observed]
    tested = _test(bench, suspects)
    return _diagnosis(evidence, bench, _verdicts(tested, evidence, bench) or _founded(tested, evidence))


def _founded(tested: Sequence[_Tested], evidence: Evidence) -> tuple[Verdict, ...]:
    """What was measured, where nothing else explains a stall: a cure may take longer than the few steps of a trial."""
    measured = [each.hypothesis for each in tested if each.hypothesis.score > CONVINCING]
    said = "no trial bears it out: what it spoils may take longer to mend than a trial lasts"
    return tuple(
        _verdict(each.code, Confidence.POSSIBLE, (*each.because, said), (), evidence)
        for each in measured[:1]
        if not each.needs_proof
    )


def _is_certain(verdict: Verdict, tested: Sequence[_Tested], evidence: Evidence) -> bool:
    """Whether a cause may be told to somebody who has not asked: nothing that was tried speaks against it.

    Without any gradient what was seen is certain anyway.
    """
    stuck = not any(evidence.history.grad_norms[-RECENT_NORMS:])
    known = [each for each in tested if each.hypothesis.code == verdict.code]
    proved = any(each.result is Result.CONFIRMED or not each.hypothesis.experiments for each in known)
    meant = verdict.code in NEVER_UNASKED and not is_idle(evidence)
    return (stuck or proved) and not meant


def _not_reproduced(
    bench: Bench, evidence: Evidence, hypotheses: Sequence[Hypothesis], again: Reproduction
) -> Diagnosis:
    confidence = Confidence.CONFIRMED if again.differs else Confidence.LIKELY
    first = _verdict("ENV702", confidence, again.because, tuple(bench.tried), evidence)
    founded = [each for each in hypotheses if each.score > UNFOUNDED and not each.needs_proof]
    others = (_verdict(each.code, Confidence.POSSIBLE, each.because, (), evidence) for each in founded)
    note = "The failure did not happen again in the laboratory, so no cause could be tried out."
    return _diagnosis(evidence, bench, (first, *others), note)


def _test(bench: Bench, hypotheses: Sequence[Hypothesis]) -> list[_Tested]:
    """Try the hypotheses in their order, until one is confirmed.

    Those that follow are shallower: of them only what was seen to happen is still worth telling.
    """
    tested = []
    for position, hypothesis in enumerate(hypotheses):
        tested.append(_test_one(bench, hypothesis))
        if tested[-1].result is Result.CONFIRMED and hypothesis.needs_proof:
            return tested  # its experiments have ruled out what else was seen
        if tested[-1].result is Result.CONFIRMED or hypothesis.settles:
            shallower = [rest for rest in hypotheses[position + 1 :] if rest.observed]
            return tested + [_Tested(hypothesis=rest) for rest in shallower]
    return tested


def _test_one(bench: Bench, hypothesis: Hypothesis) -> _Tested:
    results: list[Result] = []
    for experiment in hypothesis.experiments:
        if Result.UNMOVED in results and experiment.treatment.steps:
            continue
        result = bench.test(experiment)
        results.append(result)
        if result is Result.CONFIRMED:
            return _Tested(hypothesis=hypothesis, result=result, experiments=(experiment,))
    worst_first = (Result.UNMOVED, Result.REFUTED, Result.UNSPECIFIC, Result.UNTESTED)
    result = next((each for each in worst_first if each in results), Result.UNTESTED)
    return _Tested(hypothesis=hypothesis, result=result, experiments=hypothesis.experiments)


def _verdicts(tested: Iterable[_Tested], evidence: Evidence, bench: Bench | None) -> tuple[Verdict, ...]:
    ranked = []
    for each in tested:
        confidence = _confidence(each)
        if confidence is not None:
            trials = bench.told(each.experiments) if bench is not None else ()
            verdict = _verdict(each.hypothesis.code, confidence, each.hypothesis.because, trials, evidence)
            ranked.append((_ORDER.index(confidence), -each.hypothesis.score, verdict))
    ranked.sort(key=lambda item: item[:2])
    by_code: dict[str, Verdict] = {}
    for _, _, verdict in ranked:
        by_code.setdefault(verdict.code, verdict)  # two rules may come to one cause
    return tuple(by_code.values())


def _confidence(tested: _Tested) -> Confidence | None:
    """None: refuted, or nothing speaks for it."""
    if tested.result is Result.CONFIRMED:
        return Confidence.LIKELY if tested.hypothesis.circumstantial else Confidence.CONFIRMED
    if tested.hypothesis.needs_proof:
        return None
    if tested.hypothesis.observed:
        return Confidence.LIKELY
    if tested.result in (Result.UNMOVED, Result.REFUTED) or tested.hypothesis.score <= UNFOUNDED:
        return None
    untested = tested.result is Result.UNTESTED
    return Confidence.LIKELY if untested and tested.hypothesis.score > CONVINCING else Confidence.POSSIBLE


def _verdict(
    code: str, confidence: Confidence, because: tuple[str, ...], trials: tuple[Tried, ...], evidence: Evidence
) -> Verdict:
    known = entry(code)
    return Verdict(
        code=code,
        title=known.title,
        confidence=confidence,
        because=because,
        trials=trials,
        remedies=known.remedies(evidence.framework, _failed_operation(evidence)),
    )


def _failed_operation(evidence: Evidence) -> str:
    origin = evidence.replay.origin if evidence.replay else None
    return origin.operation if origin is not None and origin.kind is OriginKind.OPERATION else ""


def _diagnosis(evidence: Evidence, bench: Bench | None, verdicts: tuple[Verdict, ...], note: str = "") -> Diagnosis:
    if bench is not None and bench.ran_out:
        note = f"{note} The budget of the laboratory was spent before everything had been tried.".strip()
    return Diagnosis(
        verdicts=verdicts,
        origin=evidence.replay.origin if evidence.replay else None,
        guilty_rows=evidence.guilty_rows,
        trials=tuple(bench.tried) if bench is not None else (),
        replay_seconds=evidence.replay.seconds if evidence.replay else 0.0,
        seconds=bench.seconds if bench is not None else 0.0,
        steps_spent=bench.steps_spent if bench is not None else 0,
        note=note,
    )
