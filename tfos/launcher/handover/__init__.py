"""What one program of a run hands over to the next."""
