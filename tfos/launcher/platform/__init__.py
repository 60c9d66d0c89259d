"""What roles run on: tasks of Spark, YARN, Kubernetes, Hadoop, and what each can give."""
