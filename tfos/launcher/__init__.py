"""Join the rooms: submit, the driver side, role hosts and training processes."""
