"""Import TensorFlow without the start-up notices it writes past every log level."""

from __future__ import annotations

import os
import sys
import tempfile

__all__ = ["import_tensorflow"]


def import_tensorflow() -> None:
    """Import TensorFlow and let it look for devices; blocks for seconds.

    TensorFlow 2.21 writes a dozen lines to file descriptor 2 before its own logging, and so
    ``TF_CPP_MIN_LOG_LEVEL``, is set up (measured). They would bury the user's own output in every
    training process; they are shown only when the import fails.
    """
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as notices:
        os.dup2(notices.fileno(), 2)
        try:
            import tensorflow as tf

            tf.config.list_physical_devices()
        except Exception:
            notices.seek(0)
            os.write(kept, notices.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)
