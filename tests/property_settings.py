"""Property tests draw the same examples in every run, on every machine, however busy it is."""

from hypothesis import HealthCheck, settings


def load() -> None:
    """Make these the settings of the tests in a folder; called by its ``conftest.py``."""
    settings.register_profile(
        "deterministic",
        derandomize=True,
        max_examples=100,
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.too_slow],
    )
    settings.load_profile("deterministic")
