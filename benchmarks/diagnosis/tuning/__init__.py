"""The two thirds of the corpus that were seen while the diagnosis was made."""
