"""The user's application: checked, archived, shipped and imported under its own name."""
