"""Rules that read the evidence and name suspects: one file for each family of causes."""

from __future__ import annotations

from collections.abc import Callable

from nan_callbacks.diagnosis.evidence import Evidence
from nan_callbacks.diagnosis.goal import Goal, goal_of
from nan_callbacks.diagnosis.hypotheses import (
    activations,
    changes,
    custom,
    data,
    environment,
    gradients,
    idle,
    labels,
    learning_rate,
    losses,
    mistakes,
    numerics,
    precision,
)
from nan_callbacks.diagnosis.hypotheses.hypothesis import Hypothesis as Hypothesis

Rule = Callable[[Evidence, Goal], Hypothesis | None]

RULES: tuple[Rule, ...] = (
    data.non_finite_data,
    idle.idle,
    idle.mistaken,
    losses.nothing_to_average,
    losses.nothing_allowed,
    losses.longer_than_input,
    losses.no_probabilities,
    labels.out_of_range,
    precision.made_by_optimizer,
    data.outlier_samples,
    labels.wrong_labels,
    labels.forbidden_labels,
    labels.shifted_labels,
    changes.changed_loss,
    changes.thrown_weights,
    changes.changed_data,
    data.unscaled_data,
    data.unscaled_targets,
    learning_rate.too_high,
    learning_rate.far_too_high,
    gradients.exploding,
    activations.bad_initialisation,
    activations.blocked_by_zeros,
    precision.half_precision,
    precision.squared,
    numerics.numerics,
    custom.custom_layer,
    environment.known_issue,
    activations.symmetric,
    activations.dead_units,
    activations.saturated,
    gradients.vanishing,
    gradients.forgotten,
    gradients.cut_off,
    gradients.untrained,
    labels.single_class,
    labels.unrelated_labels,
    learning_rate.too_low,
)


def hypothesise(evidence: Evidence) -> tuple[Hypothesis, ...]:
    """The causes that the evidence allows, the most suspicious first.

    Args:
        evidence: What is known about the incident.
    """
    goal = goal_of(evidence)
    found = mistakes.mistakes(evidence, goal)
    known = {hypothesis.code for hypothesis in found}
    others = [hypothesis for rule in RULES if (hypothesis := rule(evidence, goal)) is not None]
    found += [hypothesis for hypothesis in others if hypothesis.code not in known]
    return tuple(sorted(found, key=lambda hypothesis: -hypothesis.score))
