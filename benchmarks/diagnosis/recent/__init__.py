"""A seventh part of the corpus, written blind after the sixth had been scored: the models of many trades."""
