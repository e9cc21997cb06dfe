"""A fourth part of the corpus, written blind by another hand: models, data and mistakes that the others lack."""
