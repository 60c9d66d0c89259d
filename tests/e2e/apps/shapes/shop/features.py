"""What a UDF calls, in Spark's Python workers."""


def scale(x):
    return x / 100.0
