"""Archives: whole for every reader of gzip, in order, with modes that everyone can use."""

import gzip
import io
import os
import random
import tarfile

import pytest

from tfos.environments.archive import GzipWriter, write_archive
from tfos.errors import InfrastructureError


def ignore(_count):
    pass


@pytest.mark.parametrize("size", [0, 1, 1 << 20, (1 << 20) + 1, 9 << 20])
def test_what_goes_in_comes_out_in_order(size):
    data = random.Random(1).randbytes(size)
    target, counted = io.BytesIO(), []
    with GzipWriter(target, counted.append, threads=3) as writer:
        for start in range(0, size, 700_000):
            writer.write(data[start : start + 700_000])
    assert gzip.decompress(target.getvalue()) == data
    assert sum(counted) == size


def test_a_failure_of_the_target_is_seen():
    class Full(io.BytesIO):
        def write(self, _data):
            raise OSError(28, "No space left on device")

    def fill():
        with GzipWriter(Full(), ignore, threads=1) as writer:
            writer.write(bytes(8 << 20))

    with pytest.raises(OSError, match="No space left"):
        fill()


@pytest.fixture
def tree(tmp_path):
    root = tmp_path / "tree"
    root.mkdir()
    (root / "run").write_text("#!/bin/sh\n")
    (root / "run").chmod(0o700)
    (root / "data").write_text("secret to none")
    (root / "data").chmod(0o600)
    os.utime(root / "data", (1_700_000_000.75, 1_700_000_000.75))
    (root / "near").symlink_to("data")
    (root / "far").symlink_to(tmp_path / "outside")
    (tmp_path / "outside").write_text("outside")
    return root


def test_files_are_everyones_and_links_out_of_it_are_what_they_point_to(tree, tmp_path):
    archive = tmp_path / "a.tar.gz"
    write_archive(archive, [(f"x/{path.name}", path) for path in sorted(tree.iterdir())], ignore)
    with tarfile.open(archive) as file:
        members = {member.name: member for member in file}
        assert file.extractfile("x/far").read() == b"outside"
        assert file.extractfile("x/data").read() == b"secret to none"
    assert [members[f"x/{name}"].mode for name in ("run", "data")] == [0o755, 0o644]
    # Bytecode compares whole seconds.
    assert members["x/data"].mtime == 1_700_000_000
    assert members["x/near"].linkname == "data"
    assert {member.uid for member in members.values()} == {0}


def test_what_cannot_be_read_is_told(tmp_path):
    with pytest.raises(InfrastructureError, match=r"could not be packed .*gone.*XDG_CACHE_HOME"):
        write_archive(tmp_path / "a.tar.gz", [("gone", tmp_path / "gone")], ignore)
