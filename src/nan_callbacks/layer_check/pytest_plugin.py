"""For pytest: the fixture ``numerically_safe``, loaded by itself once the package is installed."""

from __future__ import annotations

from collections.abc import Callable

import pytest


@pytest.fixture
def numerically_safe() -> Callable[..., None]:
    """Asserts that a layer is numerically safe: ``numerically_safe(MyLayer(16), (8, 16))``."""
    # Imported here: pytest loads this file in every project, also where no test asks for the fixture.
    from nan_callbacks.layer_check import assert_numerically_safe

    return assert_numerically_safe
