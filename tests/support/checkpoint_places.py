"""Places for checkpoints behind one face, and what is saved there."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from tfos.fault.checkpoints.store import CheckpointStore
from tfos.files.open import open_file_system

__all__ = ["Place", "weights"]


class Place:
    """A directory for checkpoints, and a way to tamper with it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.fs, self.root, _ = open_file_system(url, "--checkpoint-dir")

    def store(self, **options) -> CheckpointStore:
        return CheckpointStore(self.url, "fm", **options)

    def entries(self) -> list[str]:
        return sorted(p.rpartition("/")[2] for p in self.fs.ls(f"{self.root}/fm", detail=False))

    def write(self, path: str, data: bytes) -> None:
        self.fs.pipe_file(f"{self.root}/fm/{path}", data)

    def read(self, path: str) -> bytes:
        return self.fs.cat_file(f"{self.root}/fm/{path}")

    def remove(self, path: str) -> None:
        self.fs.rm_file(f"{self.root}/fm/{path}")


def weights(text: str) -> Callable[[str], None]:
    def write(directory: str) -> None:
        assert os.listdir(directory) == []
        Path(directory, "model.index").write_text(f"index {text}")
        Path(directory, "shards").mkdir()
        Path(directory, "shards", "data-0").write_bytes(text.encode() * 1000)

    return write
