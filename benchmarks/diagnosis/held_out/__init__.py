"""The third of the corpus that was written last, in other styles, and is scored once."""
