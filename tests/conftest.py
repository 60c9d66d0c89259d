"""What several kinds of test share lies beside this file, importable by its own name."""
