"""What integration tests share: an S3 that moto's server plays."""

from __future__ import annotations

import subprocess
import sys
import urllib.request
from collections.abc import Iterator

import pytest
from support.waiting import wait_for

from tfos.testing.ports import free_ports


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory) -> Iterator[str]:
    (port,) = free_ports(1)
    url = f"http://127.0.0.1:{port}"
    argv = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    log = tmp_path_factory.mktemp("moto") / "log"
    with log.open("w") as out, subprocess.Popen(argv, stdout=out, stderr=out) as process:
        try:

            def serves() -> bool:
                assert process.poll() is None, log.read_text()
                urllib.request.urlopen(f"{url}/moto-api/", timeout=5).close()
                return True

            wait_for(serves, 60.0, poll_s=0.1, not_yet=OSError)
            yield url
        finally:
            process.kill()


@pytest.fixture(scope="module")
def s3(s3_server) -> Iterator[None]:
    """Have every S3 client of this process and its children ask that server."""
    given = {
        "AWS_ENDPOINT_URL": s3_server,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    with pytest.MonkeyPatch.context() as patched:
        for name, value in given.items():
            patched.setenv(name, value)
        yield
