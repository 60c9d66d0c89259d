"""One rank of the check: reduce a number with the other ranks, and end with 0 if it is right."""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> int:
    """Sum every rank's number through Horovod; return the exit status."""
    import horovod.tensorflow as hvd
    import tensorflow as tf

    hvd.init()
    ranks = hvd.size()
    total = float(hvd.allreduce(tf.constant(hvd.rank() + 1.0), op=hvd.Sum).numpy())
    expected = ranks * (ranks + 1) / 2
    if total != expected:
        print(f"rank {hvd.rank()} of {ranks}: the sum is {total}, expected {expected}")
        return 1
    hvd.shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
