"""The role host, a Spark task: it spools rows and runs one training process after the other."""
