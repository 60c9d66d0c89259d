"""Run commands where this machine's Python is not to be seen, as on hosts that have none."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from support.services import tell_missing
from tfos.environments.inspection import Inspection

__all__ = ["without_base"]


def without_base(inspection: Inspection, hidden: Sequence[Path] = ()) -> list[str]:
    """Return what to put before a command: it sees neither the base interpreter nor `hidden`.

    A mount namespace of its own, which its children share. Where that is not permitted the test
    skips or fails.
    """
    base = inspection.base_prefix
    if base in (Path("/usr"), Path("/usr/local")):
        places, files = [inspection.stdlib, *hidden], [inspection.base_executable]
    else:
        places, files = [base, *hidden], []
    mounts = [f"mount -t tmpfs none {shlex.quote(str(place))}" for place in places]
    mounts += [f"mount --bind /dev/null {shlex.quote(str(file))}" for file in files]
    unshare = shutil.which("unshare")
    if unshare is None or os.geteuid() != 0:
        tell_missing("hiding the base interpreter needs unshare, and root")
    prefix = [unshare, "-m", "sh", "-c", " && ".join([*mounts, 'exec "$@"']), "sh"]
    try:
        subprocess.run([*prefix, "true"], check=True, capture_output=True, text=True, timeout=10)
    except subprocess.CalledProcessError as error:
        tell_missing(f"hiding the base interpreter is not permitted: {error.stderr}")
    return prefix
