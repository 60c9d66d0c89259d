"""Build Horovod for the installed TensorFlow, keep the wheel, install it and see it reduce."""
