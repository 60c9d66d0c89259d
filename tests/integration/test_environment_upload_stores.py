"""Environments go to the stores that `spark.staging_dir` may name: S3, HDFS by its web server."""

from __future__ import annotations

import http.server
import threading
import urllib.parse

import fsspec
import pytest

from tfos.environments.upload import upload


@pytest.fixture
def archive(tmp_path):
    path = tmp_path / "tfos-env-1.tar.gz"
    path.write_bytes(b"x" * 5000)
    return path


def test_s3_gets_an_environment_once(s3, archive, telling):
    store = fsspec.filesystem("s3")
    store.mkdir("environments")
    done = upload(archive, "s3://environments/team/envs", telling.progress)
    assert done.url == "s3://environments/team/envs/tfos-env-1.tar.gz"
    assert (done.shipped_bytes, done.private_because) == (5000, None)
    assert telling.percents[-1] == 100
    assert store.find("environments") == [done.url.removeprefix("s3://")]
    assert store.cat_file(done.url) == archive.read_bytes()
    assert upload(archive, "s3://environments/team/envs/", telling.progress).shipped_bytes == 0


class WebHdfs(http.server.BaseHTTPRequestHandler):
    """As much of a NameNode and a DataNode as one upload asks for."""

    def do(self) -> None:
        files, modes = self.server.files, self.server.modes
        parts = urllib.parse.urlsplit(self.path)
        path = parts.path.removeprefix("/webhdfs/v1")
        query = dict(urllib.parse.parse_qsl(parts.query))
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.told = b'{"boolean": true}'
        match query["op"]:
            case "GETFILESTATUS" if path not in files:
                self.told = b'{"RemoteException": {"exception": "FileNotFoundException", '
                self.told += b'"message": "no such file"}}'
                return self.answer(404)
            case "GETFILESTATUS":
                self.told = b'{"FileStatus": {"type": "FILE", "length": %d}}' % len(files[path])
            case "LISTSTATUS":
                self.told = b'{"FileStatuses": {"FileStatus": []}}'
            case "CREATE" if "at" not in query:
                return self.answer(307, f"{self.path}&at=datanode")
            case "CREATE":
                files[path] = body
                return self.answer(201, self.path)
            case "APPEND" if "at" not in query:
                return self.answer(307, f"{self.path}&at=datanode")
            case "APPEND":
                files[path] += body
            case "MKDIRS":
                files[path] = b""
            case "SETPERMISSION":
                modes[path] = query["permission"]
            case "RENAME":
                files[query["destination"]] = files.pop(path)
                modes[query["destination"]] = modes.pop(path)
        return self.answer(200)

    do_GET = do_PUT = do_POST = do_DELETE = do

    def answer(self, status: int, location: str | None = None) -> None:
        self.send_response(status)
        if location is not None:
            self.send_header("Location", f"http://127.0.0.1:{self.server.server_port}{location}")
        self.send_header("Content-Length", str(len(self.told)))
        self.end_headers()
        self.wfile.write(self.told)

    def log_message(self, *_) -> None:
        pass


@pytest.fixture
def web_hdfs():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), WebHdfs) as server:
        server.files, server.modes = {"/": b""}, {}
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_everyone_may_read_what_goes_to_hdfs_by_its_web_server(web_hdfs, archive, telling):
    base = f"webhdfs://127.0.0.1:{web_hdfs.server_port}/team/envs"
    upload(archive, base, telling.progress)
    assert web_hdfs.files["/team/envs/tfos-env-1.tar.gz"] == archive.read_bytes()
    assert web_hdfs.modes == {
        "/team": "755",
        "/team/envs": "755",
        "/team/envs/tfos-env-1.tar.gz": "644",
    }
