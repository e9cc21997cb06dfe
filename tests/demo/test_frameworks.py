import importlib.util

import pytest

from nan_callbacks.demo.frameworks import FRAMEWORKS, load_train_arm
from nan_callbacks.errors import MissingExtraError


@pytest.mark.parametrize(
    ("import_name", "library"), [("sklearn", "scikit-learn"), ("pytorch_lightning", "pytorch-lightning")]
)
def test_a_missing_library_is_answered_with_the_command_that_installs_everything(
    monkeypatch: pytest.MonkeyPatch, import_name: str, library: str
):  # fmt: skip
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == import_name else find_spec(name))

    with pytest.raises(MissingExtraError) as caught:
        load_train_arm("lightning")
    assert str(caught.value) == (
        f'nan-callbacks demo needs {library}, which is not installed. Run: pip install "nan-callbacks[lightning,demo]"'
    )


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_every_framework_on_offer_can_train_an_arm(name: str):
    assert callable(load_train_arm(name))
