"""Silence for libraries that write to standard error from compiled code, which no Python setting reaches."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

STDERR = 2
"""The file descriptor of standard error, the same in every process."""


@contextmanager
def muted_stderr() -> Iterator[None]:
    """Hold back what the process writes to standard error; show it after all if an error comes out of the block.

    TensorFlow greets whoever imports it with half a dozen lines about the machine, whatever its log level is set to.
    """
    sys.stderr.flush()
    with tempfile.TemporaryFile() as held_back:
        kept = os.dup(STDERR)
        os.dup2(held_back.fileno(), STDERR)
        try:
            yield
        except BaseException:
            sys.stderr.flush()
            held_back.seek(0)
            os.write(kept, held_back.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(kept, STDERR)
            os.close(kept)
