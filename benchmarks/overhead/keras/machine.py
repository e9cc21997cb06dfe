"""Making a process measurable: one backend, and one thread for its computations, as far as it lets itself be told."""

import os

BACKENDS = ("tensorflow", "jax", "torch")


def choose(backend: str) -> None:
    """Set what must be set before the backend is imported.

    Args:
        backend: One of :data:`BACKENDS`.
    """
    os.environ["KERAS_BACKEND"] = backend
    os.environ["OMP_NUM_THREADS"] = "1"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if backend == "jax":
        os.environ["NPROC"] = "1"  # size of XLA's thread pools
        os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_cpu_multi_thread_eigen=false"


def use_one_thread(backend: str) -> str:
    """Tell the backend itself; return its name and version."""
    if backend == "tensorflow":
        import tensorflow

        tensorflow.config.threading.set_intra_op_parallelism_threads(1)
        tensorflow.config.threading.set_inter_op_parallelism_threads(1)
        return f"tensorflow {tensorflow.__version__}"
    if backend == "jax":
        import jax

        return f"jax {jax.__version__}"
    import torch

    torch.set_num_threads(1)
    return f"torch {torch.__version__}"
