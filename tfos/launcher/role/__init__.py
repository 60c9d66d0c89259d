"""The role host, a Spark task: membership, rows into the spool, one training process after the other."""
