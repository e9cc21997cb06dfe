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
    issues_at,
    issues_of,
    issues_of_versions,
    known_issues,
)
from nan_callbacks.diagnosis.origin import Origin, OriginKind, Phase, SourceLine

ISSUES = {issue.id: issue for issue in known_issues()}
MAY_BE_EMPTY = {"fixed_in", "verified", "backends", "uses", "nonfinite", "phase"}
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
        precision={"any": "float32", "half": "bfloat16"}.get(issue.precision, issue.precision),
        components=frozenset(name for names in issue.uses[:1] for name in names.split("&")),
        backend=issue.backends[0] if issue.backends else BACKENDS.get(issue.library, ""),
    )


def platform_of(issue):
    """An operating system that has its device."""
    return "darwin" if issue.device == "mps" else "linux"


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
        if field.name == "nonfinite":
            assert isinstance(value, bool)
            continue
        assert all(
            isinstance(part, str) and part == part.strip() for part in ([value] if isinstance(value, str) else value)
        )


@pytest.mark.parametrize("name", ISSUES)
def test_each_word_is_a_known_one(name):
    issue = ISSUES[name]
    assert issue.device in {"any", "cpu", "cuda", "mps", "tpu"}
    assert issue.precision in {"any", "half", "float16", "bfloat16", "float32", "float64"}
    assert issue.confidence in {"fixed-in-release-notes", "issue-confirmed-by-maintainer", "reproduced-here"}
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
        assert issue in issues_of_versions({issue.library: version}, platform_of(issue))


@pytest.mark.parametrize("name", ISSUES)
def test_the_fixed_version_is_not_told(name):
    issue = ISSUES[name]
    if issue.fixed_in:
        assert issue not in issues_of(environment_of(issue, issue.fixed_in))
        assert issue not in issues_of_versions({issue.library: issue.fixed_in}, platform_of(issue))


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


@pytest.mark.parametrize("name", [name for name in TOLD if "&" in ISSUES[name].uses[0]])
def test_what_must_be_seen_together(name):
    issue = ISSUES[name]
    fitting = environment_of(issue, versions_within(issue)[0])
    for missing in fitting.components:
        assert issue not in issues_of(replace(fitting, components=fitting.components - {missing}))


def test_any_of_several_names_will_do():
    issue = next(issue for issue in known_issues() if len(issue.uses) > 1 and "&" not in "".join(issue.uses))
    fitting = environment_of(issue, versions_within(issue)[0])
    for used in issue.uses:
        assert issue in issues_of(replace(fitting, components=frozenset({used})))


@pytest.mark.parametrize(
    ("device", "version", "platform", "listed"),
    [
        ("mps", "2.13.0", "darwin", True),
        ("mps", "2.13.0", "linux", False),
        ("mps", "2.13.0+cpu", "win32", False),
        ("cuda", "2.13.0", "darwin", False),
        ("cuda", "2.13.0", "linux", True),
        ("cuda", "2.13.0+cu130", "win32", True),
        ("cuda", "2.13.0+cpu", "linux", False),
        ("cpu", "2.13.0+cpu", "linux", True),
        ("cpu", "2.13.0", "darwin", True),
        ("any", "2.13.0+cpu", "linux", True),
        ("any", "2.13.0", "darwin", True),
    ],
)
def test_versions_are_listed_with_issues_of_devices_that_there_can_be(device, version, platform, listed):
    assert any(issue.device == device for issue in issues_of_versions({"torch": version}, platform)) == listed


@pytest.mark.parametrize(
    ("name", "outside", "inside"),
    [
        ("torch-fused-sgd-cpu-half-skips", ["2.12.0", "2.14.0rc1", "2.14.0+cpu"], ["2.12.1", "2.13.0+cpu", "2.13.1"]),
        ("torch-inductor-conv-bias-mix-order", ["2.9.1", "2.10.1", "2.11.0"], ["2.10", "2.10.0", "2.10.0+cu128"]),
        ("torch-inductor-avgpool-ceil-mode-grad", ["2.12.1", "2.15.0"], ["2.13.0", "2.14.1", "2.14.1+cu130"]),
        ("torch-mps-matmul-large-k", ["2.12.1", "2.14.2", "2.15.0"], ["2.13.0", "2.14.1"]),
        ("jaxlib-cpu-ynn-matvec-reduction", ["0.10.1", "0.11.0"], ["0.10.2"]),
        ("jaxlib-cuda-triton-nested-concatenate", ["0.9.2", "0.10.1", "0.11.1"], ["0.10.2", "0.11.0"]),
        ("keras-binary-focal-low-gamma-nan-grad", ["3.4.0", "3.15.2", "4.0.0"], ["3.4.1", "3.10.0", "3.15.1"]),
        ("transformers-grad-accumulation-llama-4-47", ["4.46.3", "4.47.1", "4.48.1"], ["4.47.0", "4.48.0"]),
        ("bitsandbytes-8bit-adam-dynamic-map", ["0.35.4", "0.41.1", "0.5"], ["0.36.0", "0.41.0", "0.41.0.post2"]),
        ("xformers-splitk-neg-inf-bias-nan", ["0.0.26.post1", "0.0.28"], ["0.0.27", "0.0.27.post2"]),
    ],
)
def test_versions_at_the_borders(name, outside, inside):
    """They are compared by their numbers, not as text: 2.9 comes before 2.10, 0.5 before 0.36."""
    issue = ISSUES[name]
    for version in outside:
        assert issue not in issues_of_versions({issue.library: version}, platform_of(issue))
    for version in inside:
        assert issue in issues_of_versions({issue.library: version}, platform_of(issue))


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
    concerned = {"float16", "bfloat16"} if issue.precision == "half" else {issue.precision}
    for precision in ("float16", "bfloat16", "float32", "float64"):
        assert (issue in issues_of(replace(fitting, precision=precision))) == (precision in concerned)


@pytest.mark.parametrize("name", [name for name, issue in ISSUES.items() if issue.backends])
def test_the_backend_matters(name):
    issue = ISSUES[name]
    fitting = environment_of(issue, versions_within(issue)[0])
    for backend in {"", "tensorflow", "jax", "torch"} - set(issue.backends):
        assert issue not in issues_of(replace(fitting, backend=backend))


# -- after a failure -------------------------------------------------------------------------------------------------


TORCH_NOW = Environment(versions={"torch": "2.13.0+cpu"}, components=frozenset({"logsumexp", "ldexp"}))


def began(native="aten.add.default", module_type="", text="", kind=OriginKind.OPERATION, phase=Phase.FORWARD):
    line = SourceLine(file="model.py", line=3, text=text) if text else None
    return Origin(kind=kind, native_operation=native, module_type=module_type, source=line, phase=phase)


@pytest.mark.parametrize(
    "origin",
    [
        began(native="aten.logsumexp.default", phase=Phase.BACKWARD),
        began(native="logsumexp.backward", phase=Phase.BACKWARD),
        began(text="score = torch.logsumexp(paths, dim=-1)", phase=Phase.BACKWARD),
    ],
)
def test_an_issue_is_named_where_a_failure_began(origin):
    (told,) = issues_at(origin, TORCH_NOW)
    assert "torch-logsumexp-all-neg-inf-grad" in told
    assert "torch 2.13.0+cpu" in told
    assert ISSUES["torch-logsumexp-all-neg-inf-grad"].url in told
    assert not told.endswith(".")


def test_the_module_in_which_it_began_matters():
    (told,) = issues_at(began(module_type="MultiheadAttention"), TORCH_NOW)
    assert "torch-mha-need-weights-fully-masked-nan" in told
    assert issues_at(began(module_type="Linear"), TORCH_NOW) == ()


def test_wrong_but_finite_numbers_explain_no_failure():
    assert "torch-ldexp-negative-exponent-grad" in concerned(
        versions=TORCH_NOW.versions, components=TORCH_NOW.components
    )
    assert issues_at(began(native="aten.ldexp.Tensor"), TORCH_NOW) == ()


def test_the_half_of_the_step_in_which_it_began_matters():
    """The derivative of atan2 is infinite at zero everywhere; only some releases fail in its forward pass."""
    tensorflow = Environment(versions={"tensorflow": "2.21.0"}, backend="tensorflow")
    assert "tf-atan2-subnormal-nan" in issues_at(began(native="Atan2"), tensorflow)[0]
    assert issues_at(began(native="Atan2", phase=Phase.BACKWARD), tensorflow) == ()
    jax = Environment(versions={"keras": "3.15.1"}, backend="jax")
    early = began(native="rsqrt", text="near = ops.normalize(x)")
    assert "keras-normalize-zero-vector-nan-grad" in issues_at(early, jax)[0], "derivatives are prepared going forward"
    assert issues_at(early, replace(jax, backend="torch")) == ()
    assert {issue.phase for issue in ISSUES.values()} == {"", Phase.FORWARD, Phase.BACKWARD}


@pytest.mark.parametrize(
    "origin", [None, began(kind=OriginKind.BATCH, native="aten.logsumexp.default"), began(native="aten.log.default")]
)
def test_no_issue_is_named_for_other_failures(origin):
    assert issues_at(origin, TORCH_NOW) == ()


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
