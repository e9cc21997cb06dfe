"""A tenth part of the corpus, written blind after the ninth had been scored: models and mistakes that no part had."""
