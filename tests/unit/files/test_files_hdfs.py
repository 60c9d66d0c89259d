"""What an hdfs: URL names, without a server."""

from __future__ import annotations

import os
import sys

import pytest

from tfos.errors import ConfigError
from tfos.fault.checkpoints.store import CheckpointStore
from tfos.files.hdfs import open_hdfs
from tfos.files.remote import told_by_client


@pytest.fixture
def configuration(tmp_path, monkeypatch):
    """An HDFS of two NameNodes whose name is in capitals, and the default."""
    properties = {
        "fs.defaultFS": "hdfs://Prod",
        "dfs.nameservices": "Prod",
        "dfs.ha.namenodes.Prod": "nn1,nn2",
        "dfs.namenode.rpc-address.Prod.nn1": "127.0.0.1:9",
        "dfs.namenode.rpc-address.Prod.nn2": "127.0.0.1:10",
    }
    lines = [
        f"<property><name>{n}</name><value>{v}</value></property>" for n, v in properties.items()
    ]
    for name in ("core-site.xml", "hdfs-site.xml"):
        (tmp_path / name).write_text(f"<configuration>{''.join(lines)}</configuration>")
    monkeypatch.setenv("HADOOP_CONF_DIR", str(tmp_path))


@pytest.mark.parametrize(
    ("url", "host", "port", "path"),
    [
        ("hdfs://nn:9000/a/b", "nn", 9000, "/a/b"),
        ("hdfs://nn/a/b", "nn", 8020, "/a/b"),
        ("hdfs://[::1]:9000/a", "[::1]", 9000, "/a"),
        ("hdfs://nn:9000", "nn", 9000, "/"),
        ("hdfs://nn:9000//a", "nn", 9000, "//a"),
    ],
)
def test_a_name_node_is_found_without_a_configuration(monkeypatch, url, host, port, path):
    monkeypatch.delenv("HADOOP_CONF_DIR", raising=False)
    monkeypatch.delenv("YARN_CONF_DIR", raising=False)
    file_system, found = open_hdfs(url)
    assert (file_system.host, file_system.port, found) == (host, port, path)


@pytest.mark.parametrize(
    ("url", "host", "path"),
    [("hdfs://Prod/a", "Prod", "/a"), ("hdfs:///a", None, "/a"), ("hdfs:/a", None, "/a")],
)
def test_a_nameservice_keeps_its_name_and_the_default_has_none(configuration, url, host, path):
    file_system, found = open_hdfs(url)
    assert (file_system.host, file_system.port, found) == (host, None, path)


def test_a_cluster_that_only_yarns_variable_names_is_found(configuration, monkeypatch):
    monkeypatch.setenv("YARN_CONF_DIR", os.environ["HADOOP_CONF_DIR"])
    monkeypatch.setenv("HADOOP_CONF_DIR", "")
    file_system, _ = open_hdfs("hdfs:///a")
    assert file_system.host is None
    # Children, and clients of the same process, are to see it too.
    assert os.environ["HADOOP_CONF_DIR"] == os.environ["YARN_CONF_DIR"]


@pytest.mark.parametrize("path", ["/a;b", "/a#b", "/a?b", "/a%20b", "/a b/c;d"])
def test_a_path_is_taken_as_it_is(path):
    file_system, found = open_hdfs(f"hdfs://nn:9000{path}")
    assert found == path
    assert file_system._strip_protocol(path) == path
    assert file_system._strip_protocol(f"hdfs://nn:9000{path}") == path


@pytest.mark.parametrize("url", ["hdfs://nn:port/a", "hdfs:a", "hdfs:"])
def test_what_is_no_url_is_told(url):
    with pytest.raises(ConfigError, match=r"--checkpoint-dir 'hdfs:.*expected hdfs://HOST:PORT"):
        CheckpointStore(url, "fm")


def test_a_missing_configuration_is_told(monkeypatch):
    monkeypatch.delenv("HADOOP_CONF_DIR", raising=False)
    monkeypatch.delenv("YARN_CONF_DIR", raising=False)
    with pytest.raises(ConfigError, match=r"fs\.defaultFS.*no HADOOP_CONF_DIR is set"):
        CheckpointStore("hdfs:///ckpt", "fm")


def test_a_missing_client_is_told_with_how_to_get_it(monkeypatch):
    monkeypatch.delitem(sys.modules, "tfos.files.hdfs", raising=False)
    monkeypatch.setitem(sys.modules, "hdfs_native", None)
    monkeypatch.setitem(sys.modules, "hdfs_native.fsspec", None)
    with pytest.raises(ConfigError, match=r"--checkpoint-dir .* pip install 'hdfs-native>"):
        CheckpointStore("hdfs://nn:9000/ckpt", "fm")


@pytest.mark.parametrize(
    "text",
    [
        "/a is no directory\n\tat org.apache.A.b(A.java:1)\n\tat org.apache.C.d(C.java:2)\n",
        'RPCError("ParentNotDirectoryException", "/a is no directory\\n\\tat org.apache.A.b(A)")',
    ],
)
def test_a_servers_stack_trace_is_left_out(text):
    told = told_by_client(RuntimeError(text))
    assert told.startswith("RuntimeError: ")
    assert told.endswith("/a is no directory")
