"""What the guard costs: whole steps and its own time, next to the alternatives, in one interleaved run."""
