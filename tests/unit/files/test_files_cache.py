"""What cannot be written to the cache is told as the caller's own error."""

import pytest

from tfos.errors import InfrastructureError
from tfos.files.cache import locked


def test_no_room_for_a_directory_to_work_in(tmp_path):
    # The lock's path is just short enough for the system; that of a directory beside it is not.
    root = tmp_path
    while (left := 4085 - len(str(root))) > 1:
        root /= "d" * min(left - 1, 200)
    with (
        pytest.raises(InfrastructureError, match=r"the cache .* cannot be written: .*; move it"),
        locked(root, lambda: None, error=InfrastructureError, instead="move it"),
    ):
        pass
    assert [path.name for path in root.iterdir()] == [".lock"]
