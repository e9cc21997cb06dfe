"""A corpus of faulty and healthy training programs, and how well the diagnosis explains them.

The programs were written without a look at the rules of the diagnosis; each cites the public threads that its bug is
modelled on. ``python -m benchmarks.diagnosis`` runs them all.
"""
