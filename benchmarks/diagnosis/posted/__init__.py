"""A sixth part of the corpus, written blind after the fifth had been scored: complete models, as they are posted."""
