"""Bring the Arrow batches of a DataFrame into TensorFlow."""
