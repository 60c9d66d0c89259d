"""Ask as a user to whom something may be forbidden."""

__all__ = ["BECOME_NOBODY"]

BECOME_NOBODY = """
import os
if os.geteuid() == 0:  # nothing is forbidden to root
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
"""
"""Lines of a program of its own: what it imports, it has imported before."""
