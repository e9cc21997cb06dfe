"""A ninth part of the corpus, written blind after the eighth had been scored: models and mistakes that no part had."""
