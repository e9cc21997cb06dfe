"""An eighth part of the corpus, written blind after the seventh had been scored: mistakes told in question threads."""
