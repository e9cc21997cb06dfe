"""Guard, recover and diagnose neural-network training, in Lightning and in Keras.

Importing this package loads no framework. The callbacks live in the rooms that do:
`nan_callbacks.lightning` and `nan_callbacks.keras`.
"""

__version__ = "0.1.0"
