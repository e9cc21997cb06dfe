import pytest

from nan_callbacks.cli import main
from nan_callbacks.diagnosis.catalogue import catalogue


@pytest.mark.parametrize("code", ["NAN111", "nan111"])
def test_a_code_is_explained_for_both_frameworks(code: str, capsys: pytest.CaptureFixture[str]):
    assert main(["explain", code]) == 0

    told = capsys.readouterr().out
    assert told.startswith("NAN111 · logarithm of zero (cause)")
    lightning, keras = told.index("in PyTorch and Lightning:"), told.index("in Keras:")
    assert lightning < told.index("torch.nn.functional.log_softmax") < keras
    assert told.index("from_logits=True", keras) < told.index("References:")


def test_a_symptom_names_its_usual_causes(capsys: pytest.CaptureFixture[str]):
    assert main(["explain", "GRAD201"]) == 0

    told = capsys.readouterr().out
    assert "Usual causes:\n  - DATA503 outlier samples" in told


@pytest.mark.parametrize("code", list(catalogue()))
def test_lines_fit_into_a_terminal(code: str, capsys: pytest.CaptureFixture[str]):
    assert main(["explain", code]) == 0

    longest = max(capsys.readouterr().out.splitlines(), key=len)
    assert len(longest) <= 100 or " " not in longest.strip(" -"), longest


def test_an_unknown_code_is_answered_with_the_known_ones(capsys: pytest.CaptureFixture[str]):
    assert main(["explain", "NAN999"]) == 2

    printed = capsys.readouterr()
    assert printed.out == ""
    assert "NAN999" in printed.err
    assert all(code in printed.err for code in catalogue())


def test_without_a_code_all_of_them_are_listed(capsys):
    assert main(["explain"]) == 0

    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(catalogue())
    assert "NAN111   logarithm of zero (cause)" in lines
