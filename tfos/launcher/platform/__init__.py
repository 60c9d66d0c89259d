"""What Spark runs on: masters and their slots, YARN, Kubernetes, Hadoop, and what each can give."""
