"""The overhead of the Keras guard, on one backend per process."""
