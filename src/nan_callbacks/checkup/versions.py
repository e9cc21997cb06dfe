"""Known issues of the installed versions that concern what the model uses."""

from __future__ import annotations

from collections.abc import Iterator

from nan_callbacks.checkup.advice import INFO, notice
from nan_callbacks.checkup.notice import Notice
from nan_callbacks.diagnosis.known_issues import Environment, issues_of


def examine_versions(environment: Environment) -> Iterator[Notice]:
    """One notice per known issue. They are information: whether the condition is met, only the run can tell."""
    for issue in issues_of(environment):
        fixed = f"Fixed in {issue.fixed_in}. " if issue.fixed_in else ""
        yield notice(
            "ENV701", issue.id, INFO, issue.component,
            f"{issue.library} {environment.versions[issue.library]}: {issue.symptom}",
            f"When: {issue.condition} See {issue.url}",
            remedy=f"{fixed}{issue.workaround}",
        )  # fmt: skip
