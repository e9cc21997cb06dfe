"""The overhead of the Lightning guard."""
