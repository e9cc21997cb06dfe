"""Known issues: the file is sound, and a run is told exactly those that concern it."""

from dataclasses import fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from nan_callbacks.diagnosis.known_issues import (
    Environment,
    KnownIssue,
    installed_versions,
    issues_of,
    issues_of_versions,
    known_issues,
)

ISSUES = {issue.id: issue for issue in known_issues()}
MAY_BE_EMPTY = {"fixed_in", "verified", "backends", "uses"}
TOLD = [name for name, issue in ISSUES.items() if issue.uses]
"""Without anything that a model uses, an issue is told by ``check-env`` alone."""

LIBRARIES = {
    "torch",
    "keras",
    "tensorflow",
    "jax",
    "jaxlib",
    "pytorch-lightning",
    "numpy",
    "torchmetrics",
    "torchvision",
}
LIBRARIES |= {"transformers", "bitsandbytes", "xformers", "flash-attn"}
BACKENDS = {"keras": "torch", "tensorflow": "tensorflow", "jax": "jax", "jaxlib": "jax"}
"""Of Keras, with which a library takes part in a run; any other serves torch without Keras."""

SDPA = "torch-sdpa-fully-masked-row-nan"


def concerned(**about):
    told = {"versions": {"torch": "2.4.0"}, "components": frozenset({"scaled_dot_product_attention"})}
    return {issue.id for issue in issues_of(Environment(**{**told, **about}))}


def environment_of(issue, version):
    """A run that the issue concerns, if its version does."""
    return Environment(
        versions={issue.library: version},
        devices=("cpu" if issue.device == "any" else issue.device,),
        precision="float32" if issue.precision == "any" else issue.precision,
        components=frozenset(issue.uses[:1]),
        backend=issue.backends[0] if issue.backends else BACKENDS.get(issue.library, ""),
    )


def versions_within(issue):
    """Versions that the specifier itself names, and some in between."""
    named = [Version(each.version.removesuffix(".*")) for each in SpecifierSet(issue.affected)]
    near = [Version(f"{v.major}.{v.minor}.{v.micro + step}") for v in named for step in (0, 1)]
    return sorted({str(v) for v in (*named, *near) if SpecifierSet(issue.affected).contains(v, prereleases=True)})


# -- the file --------------------------------------------------------------------------------------------------------


def test_there_are_issues_and_each_has_its_own_name():
    assert len(ISSUES) == len(known_issues()) > 20


@pytest.mark.parametrize("name", ISSUES)
def test_each_field_is_filled(name):
    for field in fields(KnownIssue):
        value = getattr(ISSUES[name], field.name)
        assert value or field.name in MAY_BE_EMPTY, field.name
        assert all(
            isinstance(part, str) and part == part.strip() for part in ([value] if isinstance(value, str) else value)
        )


@pytest.mark.parametrize("name", ISSUES)
def test_each_word_is_a_known_one(name):
    issue = ISSUES[name]
    assert issue.device in {"any", "cpu", "cuda", "mps", "tpu"}
    assert issue.precision in {"any", "float16", "bfloat16", "float32", "float64"}
    assert issue.confidence in {"fixed-in-release-notes", "issue-confirmed-by-maintainer"}
    assert set(issue.backends) <= {"tensorflow", "jax", "torch", "openvino", "numpy"}
    assert issue.library in LIBRARIES
    assert issue.url.startswith("https://")
    assert issue.id == issue.id.lower()
    assert " " not in issue.id


@pytest.mark.parametrize("name", ISSUES)
def test_the_fixed_version_is_not_affected(name):
    issue = ISSUES[name]
    affected = SpecifierSet(issue.affected)
    assert len(affected) > 0
    if issue.fixed_in:
        assert not affected.contains(Version(issue.fixed_in), prereleases=True)
        assert versions_within(issue), "some version is affected"
        assert all(Version(each) < Version(issue.fixed_in) for each in versions_within(issue))


# -- which of them concern a run -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TOLD)
def test_an_affected_run_is_told(name):
    issue = ISSUES[name]
    for version in versions_within(issue):
        assert issue in issues_of(environment_of(issue, version))
        assert issue in issues_of_versions({issue.library: version})


@pytest.mark.parametrize("name", ISSUES)
def test_the_fixed_version_is_not_told(name):
    issue = ISSUES[name]
    if issue.fixed_in:
        assert issue not in issues_of(environment_of(issue, issue.fixed_in))
        assert issue not in issues_of_versions({issue.library: issue.fixed_in})


@pytest.mark.parametrize("version", ["2.4.0", "2.4.0+cpu", "2.4.1+cu121", "2.4.0a0+git1234", "2.0", "2.0.0+rocm5.7"])
def test_builds_of_an_affected_version(version):
    assert SDPA in concerned(versions={"torch": version})


@pytest.mark.parametrize("version", ["2.5.0", "2.5.0+cpu", "2.13.0+cpu", "1.13.1+cu117", "not a version", ""])
def test_builds_of_other_versions(version):
    assert SDPA not in concerned(versions={"torch": version})


def test_the_last_affected_version_with_a_local_part():
    issue = ISSUES["torch-mha-need-weights-fully-masked-nan"]
    last = issue.affected.rpartition("<=")[2]
    assert issue in issues_of(environment_of(issue, f"{last}+cpu"))


def test_only_what_the_model_uses_matters():
    assert SDPA not in concerned(components=frozenset({"linear", "AdamW"}))
    assert concerned(components=frozenset()) == set()


@pytest.mark.parametrize(
    ("library", "backend"), [("jax", "torch"), ("tensorflow", "jax"), ("keras", ""), ("torch", "jax")]
)
def test_what_is_installed_for_other_work_is_not_told(library, backend):
    issue = next(issue for issue in known_issues() if issue.library == library and issue.uses)
    fitting = environment_of(issue, versions_within(issue)[0])
    assert issue in issues_of(fitting)
    assert issue not in issues_of(replace(fitting, backend=backend))


def test_only_the_library_matters():
    assert SDPA not in concerned(versions={"keras": "2.4.0"})
    assert concerned(versions={}) == set()


@pytest.mark.parametrize("name", [name for name in TOLD if ISSUES[name].device != "any"])
def test_the_device_matters(name):
    issue = ISSUES[name]
    fitting = environment_of(issue, versions_within(issue)[0])
    others = tuple({"cpu", "cuda", "mps", "tpu"} - {issue.device})
    assert issue in issues_of(replace(fitting, devices=(*others, issue.device)))
    assert issue not in issues_of(replace(fitting, devices=others))


@pytest.mark.parametrize("name", [name for name, issue in ISSUES.items() if issue.precision != "any"])
def test_the_precision_matters(name):
    issue = ISSUES[name]
    fitting = environment_of(issue, versions_within(issue)[0])
    for precision in {"float16", "bfloat16", "float32", "float64"} - {issue.precision}:
        assert issue not in issues_of(replace(fitting, precision=precision))


@pytest.mark.parametrize("name", [name for name, issue in ISSUES.items() if issue.backends])
def test_the_backend_matters(name):
    issue = ISSUES[name]
    fitting = environment_of(issue, versions_within(issue)[0])
    for backend in {"", "tensorflow", "jax", "torch"} - set(issue.backends):
        assert issue not in issues_of(replace(fitting, backend=backend))


@given(
    versions=st.dictionaries(st.sampled_from(["torch", "keras", "tensorflow"]), st.text(max_size=12)),
    devices=st.lists(st.text(max_size=5)).map(tuple),
    precision=st.text(max_size=8),
    components=st.frozensets(st.text(max_size=8)),
)
def test_any_environment_can_be_asked_about(versions, devices, precision, components):
    issues_of(Environment(versions=versions, devices=devices, precision=precision, components=components))
    issues_of_versions(versions)


def test_installed_versions_are_versions():
    assert all(Version(version) for version in installed_versions().values())
