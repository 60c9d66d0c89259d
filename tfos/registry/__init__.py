"""Hold the control plane of a run: who is registered, which generation is live, how roles ended."""
