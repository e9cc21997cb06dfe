"""The checkup: rules on what is known before the first step. Numpy only; the adapters gather the facts."""
