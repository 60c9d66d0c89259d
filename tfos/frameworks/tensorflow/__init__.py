"""TensorFlow: the architectures local, ps, session and ring, and the common loop."""
