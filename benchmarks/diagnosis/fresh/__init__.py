"""A third part of the corpus, written blind after the diagnosis was finished: other models, data and mistakes."""
