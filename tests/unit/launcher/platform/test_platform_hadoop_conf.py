from __future__ import annotations

import pytest

from tfos.launcher.platform.hadoop_conf import configuration_in_container

UNPACKED = "/container/__spark_conf__/__hadoop_conf__"


@pytest.mark.parametrize(
    ("environ", "directories", "added"),
    [
        ({}, {UNPACKED}, {"HADOOP_CONF_DIR": UNPACKED}),
        ({"HADOOP_CONF_DIR": ""}, {UNPACKED}, {"HADOOP_CONF_DIR": UNPACKED}),
        ({"HADOOP_CONF_DIR": "/etc/hadoop"}, {UNPACKED, "/etc/hadoop"}, {}),
        # The submitter's own, which this host does not have.
        ({"HADOOP_CONF_DIR": "/home/u/conf"}, {UNPACKED}, {"HADOOP_CONF_DIR": UNPACKED}),
        ({"HADOOP_CONF_DIR": "/home/u/conf"}, set(), {}),
        ({}, set(), {}),
    ],
)
def test_what_is_added_to_the_environment(environ, directories, added):
    assert configuration_in_container(environ, "/container", directories.__contains__) == added
