"""A fifth part of the corpus, written blind after the fourth had been scored: the mistakes that are posted weekly."""
