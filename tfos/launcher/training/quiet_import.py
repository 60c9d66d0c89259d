"""Import TensorFlow in as little time, and with as few words, as it can be."""

from __future__ import annotations

import gc
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["import_quietly"]


def import_quietly(load: Callable[[], None]) -> None:
    """Call what imports TensorFlow; blocks for seconds.

    TensorFlow 2.21 writes a dozen lines to file descriptor 2 before its own logging, and so
    ``TF_CPP_MIN_LOG_LEVEL``, is set up (measured). They would bury the user's own output in every
    training process; they are shown only when the import fails.

    An import makes a million objects that stay: the garbage collector, which would look at them
    again and again, takes a fifth of its time (4.0 s of CPU with, 3.1 s without; measured). It
    rests meanwhile, and leaves these objects alone for good.
    """
    sys.stderr.flush()
    kept = os.dup(2)
    with _collector_at_rest(), tempfile.TemporaryFile() as notices:
        os.dup2(notices.fileno(), 2)
        try:
            load()
        except Exception:
            notices.seek(0)
            os.write(kept, notices.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)


@contextmanager
def _collector_at_rest() -> Iterator[None]:
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
