"""This interpreter's environment, packed, on hosts that have neither it nor its base."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

import pyspark
import pytest
from support.hidden_base import without_base
from support.yarn_runs import COUNTED, YarnRuns

from tfos.environment_spec import EnvironmentSpec
from tfos.environments.inspection import inspect_environment
from tfos.errors import ExitCode
from tfos.testing import DrillCluster
from tfos.testing.yarn import YarnCluster

SIZES = ("--chief-memory", "1536m", "-p", "rows=1000", "-p", "epochs=2", "-p", "slow=0")


@pytest.fixture
def bare(tmp_path, monkeypatch):
    """Runs on hosts without Python packages, Spark's jars, or an interpreter like this one."""
    prefix = Path(sys.prefix)
    hidden = without_base(inspect_environment(EnvironmentSpec("venv", str(prefix))), [prefix])
    for name in ("yarn", "runs"):
        (tmp_path / name).mkdir()
    # The servers themselves run from some of Spark's jars.
    for name in ("bin", "jars"):
        shutil.copytree(Path(pyspark.__file__).parent / name, tmp_path / "spark" / name)
    monkeypatch.setenv("SPARK_HOME", str(tmp_path / "spark"))
    with YarnCluster(tmp_path / "yarn", memory_mb=9216, node_prefix=hidden) as yarn:
        monkeypatch.delenv("SPARK_HOME")
        with DrillCluster(tmp_path / "runs", master="yarn", limit_s=400.0) as cluster:
            yield YarnRuns(yarn, cluster, options=())
            cluster.assert_nothing_left()


@pytest.mark.faults
@pytest.mark.timeout(900)
def test_it_is_shipped_once_and_trains(bare):
    packed = ("--env", f"venv:{sys.prefix}", *SIZES)
    first = bare(*packed, COUNTED)
    assert first.code == ExitCode.OK
    assert first.record["result"]["fewest"] == 2
    second = bare(*packed, COUNTED)
    assert second.code == ExitCode.OK
    print(f"first {first.seconds:.0f} s, second {second.seconds:.0f} s")
    assert re.search(r"uploading .* to hdfs://.*/environments/", first.text)
    assert re.search(r"uploading .* to hdfs://.*/spark-jars/", first.text)
    assert "uploading" not in second.text
    assert len(re.findall("is there already: nothing is uploaded", second.text)) == 2
    # Without the environment the same hosts cannot run a role.
    without = bare(*SIZES, COUNTED)
    assert without.code == ExitCode.CONFIG
    assert "No module named" in without.record["error"]
    assert "--env venv:DIRECTORY" in without.record["failures"][0]["hint"]
