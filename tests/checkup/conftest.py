"""Property tests draw the same examples in every run, on every machine."""

from hypothesis import settings

settings.register_profile("deterministic", derandomize=True, max_examples=100, deadline=None, database=None)
settings.load_profile("deterministic")
