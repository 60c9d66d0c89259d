"""Keep checkpoint directories on HDFS, whose rename is one step."""

from __future__ import annotations

import uuid
from collections.abc import Callable

from tfos.fault.checkpoint_storage import STAGING
from tfos.fault.checkpoint_storage_remote import RemoteStorage, upload_tree

__all__ = ["HdfsStorage"]


class HdfsStorage(RemoteStorage):
    """A directory on HDFS; what appears in it appears by rename.

    A file of HDFS shows, empty or in part, before it is whole: a commit marker put in its place
    would be there for a moment without being one.
    """

    def publish(self, staging: str, name: str, last: str, check: Callable[[], None]) -> None:
        """See `CheckpointStorage.publish`."""
        aside = STAGING + uuid.uuid4().hex
        with self._removed_on_failure(aside, last), self._explained("written"):
            upload_tree(self._fs, staging, f"{self._root}/{aside}", last)
            check()
            self._fs.mv(f"{self._root}/{aside}", f"{self._root}/{name}")

    def _replace(self, path: str, target: str) -> None:
        self._fs.mv(path, target, overwrite=True)
