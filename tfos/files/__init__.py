"""Files: durable writes, publishing by rename, HDFS, caches, directories of this user alone."""
