"""One backend per process: `KERAS_BACKEND=jax python -m pytest tests/keras_adapter`. Not collected without it."""

import os
from pathlib import Path

BACKEND = os.environ.get("KERAS_BACKEND")

collect_ignore_glob = [] if BACKEND else ["*.py"]

if BACKEND:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if BACKEND == "jax":
        # Two CPU devices, for the tests of data parallelism; before jax is imported.
        os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=2"
        # Compiling takes most of the time, and many tests compile the same: programs are kept, for other processes too.
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(".pytest_cache/xla").resolve()))
        os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
        os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
    import keras

    if keras.backend.backend() != BACKEND:
        raise RuntimeError(f"KERAS_BACKEND={BACKEND} was asked for, Keras runs on {keras.backend.backend()}")
    if BACKEND == "tensorflow":
        import tensorflow as tf

        cpu = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)

        # The autotuner of tf.data sleeps up to a minute, and the garbage collector waits for it wherever an iterator
        # was left before its end: whole tests would stand still, and whatever keeps to a budget of time would give up.
        untuned = tf.data.Options()
        untuned.autotune.enabled = False
        plain_iter, plain_distribute = tf.data.Dataset.__iter__, tf.distribute.Strategy.experimental_distribute_dataset
        tf.data.Dataset.__iter__ = lambda dataset: plain_iter(dataset.with_options(untuned))
        tf.distribute.Strategy.experimental_distribute_dataset = lambda strategy, dataset, *args, **options: (
            plain_distribute(strategy, dataset.with_options(untuned), *args, **options)
        )
