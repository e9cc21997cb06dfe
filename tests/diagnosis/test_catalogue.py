import importlib
import re
from pathlib import Path

import pytest

import nan_callbacks
from nan_callbacks.diagnosis.catalogue import FAMILIES, catalogue, entry
from nan_callbacks.diagnosis.catalogue.page import page
from nan_callbacks.diagnosis.operations import SYNONYMS, neutral_name

ROOMS = ("core", "diagnosis", "checkup")
CODE = re.compile(r'"((?:NAN|GRAD|ACT|LOSS|DATA|OPT|ENV)[1-7]\d\d)"')
API = re.compile(r"`((?:torch|keras)(?:\.\w+)+)")
SOURCE = Path(nan_callbacks.__file__).parent


def codes_in_the_source() -> set[str]:
    files = [file for room in ROOMS for file in (SOURCE / room).rglob("*.py")]
    return {code for file in files for code in CODE.findall(file.read_text(encoding="utf-8"))}


def test_every_code_that_can_be_emitted_is_in_the_catalogue_and_vice_versa():
    assert codes_in_the_source() == set(catalogue())


def test_codes_lie_in_the_file_of_their_family():
    families = {code.rstrip("0123456789").lower() for code in catalogue()}
    assert families == set(FAMILIES)
    hundreds = {code.rstrip("0123456789"): set() for code in catalogue()}
    for code in catalogue():
        hundreds[code.rstrip("0123456789")].add(code[-3])
    assert all(len(digits) == 1 for digits in hundreds.values()), hundreds


@pytest.mark.parametrize("code", list(catalogue()))
def test_entries_are_complete(code: str):
    known = entry(code)
    assert known.kind in ("symptom", "cause")
    assert known.title == known.title.strip(" .") != ""
    assert known.meaning.endswith(".")
    assert known.mechanism.endswith(".")
    assert known.see_also
    assert code not in known.see_also
    assert set(known.see_also) <= set(catalogue())
    assert known.lightning
    assert known.keras
    assert known.references
    assert known.remedies("keras") == known.keras
    assert known.remedies() == (*known.lightning, *known.keras)


@pytest.mark.parametrize("framework", ["lightning", "keras"])
def test_an_operation_is_given_its_own_remedies(framework: str):
    division = entry("NAN112")
    (masked,) = division.remedies(framework, "softmax")
    assert "attention row" in masked
    assert masked not in division.remedies(framework, "divide")
    assert "logsumexp" not in " ".join(entry("NAN110").remedies(framework, "power"))
    assert division.remedies(framework, "unheard of") == division.remedies(framework)


@pytest.mark.parametrize("code", list(catalogue()))
def test_what_fits_an_operation_is_there(code: str):
    known = entry(code)
    for operation, chosen in known.fits.items():
        assert operation in {neutral_name(operation), *SYNONYMS.values()}
        assert 0 < len(set(chosen)) == len(chosen)
        assert max(chosen) < min(len(known.lightning), len(known.keras))


@pytest.mark.parametrize("code", list(catalogue()))
def test_symptoms_point_to_causes(code: str):
    if entry(code).kind == "symptom":
        kinds = [entry(other).kind for other in entry(code).see_also]
        assert kinds.count("cause") >= 2


def test_titles_are_told_apart():
    titles = [known.title for known in catalogue().values()]
    assert len(set(titles)) == len(titles)


def test_symptoms_have_the_titles_that_detectors_give_them():
    watches = [SOURCE / "core" / f"{name}.py" for name in ("events", "stall", "relapse", "start")]
    files = [*(SOURCE / "core" / "detectors").glob("*.py"), *watches]
    text = "\n".join(file.read_text(encoding="utf-8") for file in files)
    for known in catalogue().values():
        if known.kind == "symptom":
            assert f'"{known.title}"' in text, known.code


def test_remedies_do_not_send_users_of_one_framework_to_the_other():
    for known in catalogue().values():
        assert not any("keras." in remedy for remedy in known.lightning), known.code
        assert not any("Trainer(" in remedy for remedy in known.keras), known.code


def test_an_unknown_code_is_answered_with_the_known_ones():
    with pytest.raises(KeyError, match=r"NAN101.*ENV703.*received 'NAN999'"):
        entry("NAN999")


def apis(framework: str) -> list[str]:
    texts = [text for known in catalogue().values() for text in (*known.lightning, *known.keras)]
    return sorted({name for text in texts for name in API.findall(text) if name.startswith(framework)})


@pytest.mark.parametrize("framework", ["torch", "keras"])
def test_every_api_that_a_remedy_names_exists(framework: str):
    pytest.importorskip(framework)
    names = apis(framework)
    assert len(names) > 15
    assert [name for name in names if not resolves(name)] == []


def test_the_check_of_apis_can_fail():
    pytest.importorskip("torch")
    assert resolves("torch.nn.functional.log_softmax")
    assert not resolves("torch.nn.functional.no_such_function")


def resolves(name: str) -> bool:
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:end]))
        except ImportError:
            continue
        for part in parts[end:]:
            if not hasattr(found, part):
                return False
            found = getattr(found, part)
        return True
    return False


def test_the_page_of_the_documentation_is_that_of_the_catalogue():
    written = Path(__file__).parents[2] / "docs" / "codes.md"

    assert written.read_text(encoding="utf-8") == page() + "\n", (
        "write it anew: python -m nan_callbacks.diagnosis.catalogue.page > docs/codes.md"
    )


def test_every_link_of_the_page_leads_to_a_heading():
    text = page()
    headings = re.findall(r"^## (.*)$", text, re.MULTILINE)
    anchors = {re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-") for heading in headings}

    assert len(anchors) == len(catalogue())
    assert set(re.findall(r"\(#([^)]*)\)", text)) == anchors
