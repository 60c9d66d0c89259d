"""What a training process sees of the application: its modules, by name, with their sources."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import pickle
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import pytest

from tfos.base import Job
from tfos.errors import JobDefinitionError
from tfos.launcher.application.archive import home_of_file, pack_application
from tfos.launcher.application.job_state import pickle_job

REPOSITORY = Path(__file__).parents[4]

NEIGHBOUR = """
class Base: pass
RATE = {"value": 0.1}
"""
APPLICATION = """
import argparse, dataclasses, enum, inspect, multiprocessing, pickle, sys, traceback
import app_neighbour
from app_neighbour import Base
import tfos

parser = argparse.ArgumentParser()
parser.add_argument("--rows", type=int)
FLAGS = parser.parse_args()

class Kind(enum.Enum):
    A = 1

@dataclasses.dataclass
class Row:
    kind: Kind

class Mine(Base): pass

def square(x):
    return x * x

def fails():
    return 1 / 0  # on purpose

class ShapesJob(tfos.Job):
    def pre_train(self, spark):
        self.row, self.mine, self.square = Row(Kind.A), Mine(), square

    def train(self, ctx):
        import app_neighbour as again
        try:
            fails()
        except ZeroDivisionError:
            shown = traceback.format_exc()
        pools = []
        for method in ("fork", "spawn"):
            with multiprocessing.get_context(method).Pool(2) as pool:
                pools.append(sum(pool.map(square, range(4))))
        return {
            "rows": FLAGS.rows, "program": sys.argv[0],
            "enum": self.row.kind is Kind.A, "isinstance": isinstance(self.mine, again.Base),
            "same": self.square is square and again is app_neighbour,
            "pickled": pickle.loads(pickle.dumps(self.row)) == self.row,
            "source": inspect.getsource(square), "shown": shown, "pools": pools,
        }

if __name__ == "__main__":
    raise SystemExit("the guard ran")
"""
PLAY = """
import json, signal, sys, types
from tfos.launcher.training import main as training_process
from tfos.launcher.application.shipped import UnpackedApplication

if __name__ == "__main__":
    signal.signal(signal.SIGTERM, training_process._on_sigterm)
    training_process.prepare_children()
    told = json.loads(sys.argv[1])
    files = UnpackedApplication(**told.pop("files")) if told["files"] else None
    facts = types.SimpleNamespace(args=told["args"])
    spec = types.SimpleNamespace(
        application=files, program=told["program"], job_file=told["job"], facts=facts
    )
    print(json.dumps(training_process._load_job(spec).train(None)))
else:
    from tfos.launcher.application.importing import import_as_parent
    import_as_parent()
"""


def on_the_driver(directory: Path, app: Path, arguments: list[str]) -> bytes:
    """Return the job, pickled, as the driver of an application pickles it."""
    script = (
        "import sys; from pathlib import Path\n"
        "from tfos.launcher.application.loading import load_job\n"
        "from tfos.launcher.application.job_state import pickle_job\n"
        "app = Path(sys.argv.pop(1)); job = load_job(app, None); job.pre_train(None)\n"
        "sys.stdout.buffer.write(pickle_job(job, 2))\n"
    )
    argv = [sys.executable, "-c", script, str(app), *arguments]
    return subprocess.run(argv, cwd=REPOSITORY, capture_output=True, check=True).stdout


def in_training(directory: Path, job: bytes, home: Path | None, app: str, arguments: list[str]):
    """Return what ``train`` returns in a process that has the snapshot in `directory`."""
    (directory / "job.pkl").write_bytes(job)
    (directory / "play.py").write_text(PLAY)
    files = None
    if home is not None:
        files = {"directory": str(directory / "unpacked"), "paths": [""], "home": str(home)}
    told = {"files": files, "program": app, "job": str(directory / "job.pkl"), "args": arguments}
    found = subprocess.run(
        [sys.executable, str(directory / "play.py"), json.dumps(told)],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stderr
    assert found.stderr == ""
    return json.loads(found.stdout)


def test_a_training_process_runs_the_modules_that_the_driver_ran(tmp_path):
    home, host = tmp_path / "home", tmp_path / "host"
    home.mkdir()
    host.mkdir()
    app = home / "the_app.py"
    app.write_text(APPLICATION)
    (home / "app_neighbour.py").write_text(NEIGHBOUR)
    job = on_the_driver(tmp_path, app, ["--rows", "30"])
    with zipfile.ZipFile(io.BytesIO(pack_application(home_of_file(app).directory))) as archive:
        archive.extractall(host / "unpacked")
    # What becomes of the file changes nothing for processes that start later.
    app.write_text("raise SystemExit('edited')\n" * 99)
    (home / "app_neighbour.py").unlink()
    found = in_training(host, job, home, str(app), ["--rows", "30"])
    line = APPLICATION[: APPLICATION.index("return 1 / 0")].count("\n") + 1
    assert f'File "{app}", line {line}' in found["shown"]
    assert "return 1 / 0  # on purpose" in found.pop("shown")
    assert found == {
        "rows": 30,
        "program": str(app),
        "enum": True,
        "isinstance": True,
        "same": True,
        "pickled": True,
        "source": "def square(x):\n    return x * x\n",
        "pools": [14, 14],
    }


FOR_SPARK = """
import pandas as pd
from pyspark.ml.feature import StringIndexer
from pyspark.sql import SparkSession, Window, functions as F
from pyspark.sql.types import LongType
import tfos

spark = SparkSession.builder.config("spark.x", "y").getOrCreate()
spark.sparkContext.setLogLevel("ERROR")
names = [row.name for row in spark.read.parquet("/names").where(F.col("n") > 3).collect()]
recent = Window.partitionBy("user").orderBy(F.desc("time"))
indexer = StringIndexer(inputCol="name", outputCol="index")

@F.udf("array<bigint>")
def both(x):
    return [x, x]

@F.udf(LongType())
def twice(x):
    return 2 * x

@F.pandas_udf("double")
def mean(x: pd.Series) -> float:
    return x.mean()

CLEAN = F.when(both("x").isNull(), F.lit(0)).otherwise(twice(F.col("x")) + 1)

class SparkJob(tfos.Job):
    def pre_train(self, spark):
        self.mean = mean

    def train(self, ctx):
        try:
            spark.range(3)
        except tfos.TfosError as error:
            return [both.func(2), twice.func(4), str(error)]
"""


def test_lines_for_spark_do_nothing_where_there_is_none(tmp_path):
    home, host = tmp_path / "home", tmp_path / "host"
    home.mkdir()
    (host / "unpacked").mkdir(parents=True)
    for directory in (home, host / "unpacked"):
        (directory / "app_for_spark.py").write_text(FOR_SPARK)
    job = pickle.dumps(({}, b"capp_for_spark\nSparkJob\n(tR."))
    *values, refusal = in_training(host, job, home, "", [])
    assert values == [[2, 2], 8]
    assert refusal.startswith("train uses an object of Spark's")


NOTEBOOK = """
import linecache, sys, threading
from tfos.base import Job
from tfos.launcher.application.job_state import pickle_job

class JavaObject:
    __module__ = "py4j.java_gateway"
    def __init__(self):
        self.lock = threading.Lock()

cell = '''
lock = threading.Lock()  # on the driver alone
java = JavaObject()  # as in a session or a UDF

def double(x):
    return 2 * x

class CellJob(Job):
    def pre_train(self, spark):
        with lock:
            self.rows = 21

    def columns(self):
        return java.columns()

    def train(self, ctx):
        import inspect
        try:
            self.columns()
        except Exception as error:
            return [double(self.rows), inspect.getsource(double), str(error)]
'''
linecache.cache["<cell 1>"] = (len(cell), None, cell.splitlines(True), "<cell 1>")
exec(compile(cell, "<cell 1>", "exec"))
job = CellJob()
job.pre_train(None)
sys.stdout.buffer.write(pickle_job(job, 2))
"""


def test_a_notebooks_classes_travel_by_value_with_their_source_and_without_pre_train(tmp_path):
    argv = [sys.executable, "-c", NOTEBOOK]
    job = subprocess.run(argv, cwd=REPOSITORY, capture_output=True, check=True).stdout
    *found, refusal = in_training(tmp_path, job, None, "", [])
    assert found == [42, "def double(x):\n    return 2 * x\n"]
    assert refusal.startswith("train uses an object of Spark's")


def test_a_notebooks_job_must_not_hold_an_object_of_sparks():
    argv = [sys.executable, "-c", NOTEBOOK.replace("self.rows = 21", "self.java = [java]")]
    ended = subprocess.run(argv, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert "JobDefinitionError" in ended.stderr.splitlines()[-1]
    assert "its attribute 'java' cannot be pickled" in ended.stderr


def test_names_the_attribute_that_cannot_be_pickled():
    @dataclasses.dataclass
    class Locked(Job):
        fine: int = 1

    job = Locked()
    job.lock = threading.Lock()
    with pytest.raises(JobDefinitionError, match="its attribute 'lock' cannot be pickled"):
        pickle_job(job, 2)
