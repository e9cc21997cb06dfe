"""Detectors: each watches one kind of symptom, one observation at a time."""
