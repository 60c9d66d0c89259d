"""Fit a small job several times, one after the other, in a process of its own with TensorFlow.

``python -m support.warm_start_program ARCH DIRECTORY``; each fit is told as a line of JSON.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

os.environ["TF_USE_LEGACY_KERAS"] = "1"
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"
os.environ["CUDA_VISIBLE_DEVICES"] = ""

import numpy as np
import tensorflow as tf
import tf_keras
from tensorflow.python.eager.context import Context

from tfos.base import TrainContext
from tfos.errors import TfosError
from tfos.fault.checkpoints.store import CheckpointStore
from tfos.frameworks.contract import load_framework
from tfos.frameworks.tensorflow.saved_model import check_saved_model
from tfos.frameworks.tensorflow.state_writer import StateWriter
from tfos.frameworks.tensorflow.trained_state import TrainedState
from tfos.launcher.handover.messages import FromProcess
from tfos.launcher.training.checkpoints import StoredCheckpoints
from tfos.testing.ports import free_ports
from tfos.topology import ClusterSpec, Endpoint, TaskKey
from tfos.training_parts import HostLink, ProcessFacts

ROWS, GROWN = 50_000, 60_000
"""Large enough to be sharded over two parameter servers."""


class Link(HostLink):
    """Keeps the lines for the run's log."""

    def __init__(self) -> None:
        self.notices: list[str] = []

    def notify(self, text: str, *, warning: bool = False) -> None:
        self.notices.append(text)

    def send(self, message: FromProcess) -> None:
        pass

    def report(self, step: int, rows: int, metrics: Any) -> None:
        pass

    def should_stop(self) -> bool:
        return False


class Feed:
    """Two batches of ids below 100, then none."""

    continue_at = None

    def tracked_dataset(self, plan: Any, starts: Any, map: Any = None) -> Any:
        begin = starts[0].row if starts else 0
        batches = [row for row in (0, 100) if row >= begin and not (starts and starts[0].epoch)]
        ends = [[0, 0, 100, 100], [0, 1, 0, 100]]
        status = tf.constant([ends[row // 100] for row in batches] or [[0, 1, 0, 0]], tf.int64)
        items = tf.zeros([max(len(batches), 1), 100], tf.int64) + tf.range(100, dtype=tf.int64)
        over = tf.data.Dataset.from_tensors(
            ({"item": tf.zeros([100], tf.int64)}, tf.constant([0, 1, 0, 0], tf.int64))
        )
        return tf.data.Dataset.from_tensor_slices(({"item": items}, status)).concatenate(
            over.repeat()
        )


def serve(arch: str) -> ClusterSpec:
    """Start the servers of a cluster in this process."""
    keys = ["chief-0"] if arch == "local" else ["chief-0", "worker-0", "ps-0", "ps-1"]
    ports = free_ports(len(keys))
    cluster = ClusterSpec(
        {
            TaskKey.parse(key): Endpoint("127.0.0.1", port)
            for key, port in zip(keys, ports, strict=True)
        }
    )
    for key in cluster.endpoints:
        if str(key) != "chief-0":
            server = tf.distribute.Server(
                tf.train.ClusterSpec(cluster.by_role),
                job_name=key.role.value,
                task_index=key.index,
                protocol="grpc",
            )
            _servers.append(server)
    return cluster


_servers: list[Any] = []


class Fitter:
    def __init__(self, arch: str, directory: str) -> None:
        self._arch = arch
        self._directory = directory
        chief = TaskKey.parse("chief-0")
        self._facts = ProcessFacts("job", "r", 1, chief, serve(arch), (chief,), (0,))
        self._link = Link()
        self._runtimes = {
            each: load_framework(each).runtime(self._facts, self._link).__enter__()
            for each in {"local", arch}
        }

    def scope(self) -> Any:
        """Return the scope in which variables of the program's architecture are made."""
        return self._runtimes[self._arch].scope()

    def __call__(self, told: str, name: str, arch: str | None = None, **given: Any) -> None:
        """Fit job `name` once, under the program's architecture or another; write the outcome."""
        self._link.notices.clear()
        os.chdir(self._directory)
        store = CheckpointStore(f"{self._directory}/ckpt", name, run_id=told)
        spec = SimpleNamespace(facts=self._facts)
        outcome: dict[str, Any] = {"fit": told}
        try:
            with StoredCheckpoints(store, spec, self._link) as checkpoints:
                ctx = TrainContext(
                    self._facts,
                    feed=Feed(),
                    checkpoints=checkpoints,
                    link=self._link,
                    runtime=self._runtimes[arch or self._arch],
                    export_to=lambda write, step: None,
                )
                outcome |= self._fit(ctx, **given)
        except TfosError as error:
            outcome["error"] = f"{type(error).__name__}: {error}"
        latest = store.latest()
        outcome["latest"] = None if latest is None else latest.path
        print(json.dumps({**outcome, "notices": self._link.notices}), flush=True)

    def _fit(
        self,
        ctx: TrainContext,
        rows: int = ROWS,
        fill: float = 0.0,
        optimizer: str = "legacy",
        extra: bool = False,
        renamed: bool = False,
        compiled: bool = False,
        export: str | None = None,
        **options: Any,
    ) -> dict[str, Any]:
        with ctx.scope():
            table = tf.Variable(tf.fill([rows, 4], fill), name="items")
            if optimizer == "v1":
                opt = tf.compat.v1.train.AdagradOptimizer(0.5, initial_accumulator_value=0.25)
            else:
                kinds = tf_keras.optimizers.legacy if optimizer == "legacy" else tf_keras.optimizers
                opt = kinds.Adagrad(0.5, initial_accumulator_value=0.25)
            state: dict[str, Any] = {"embedding" if renamed else "table": table, "opt": opt}
            if extra:
                state["bias"] = tf.Variable(3.0, name="bias")

        def step(batch):
            with tf.GradientTape() as tape:
                chosen = tf.nn.embedding_lookup(table, batch["item"])
                loss = tf.reduce_sum(tf.square(chosen - 1.0))
            parts = list(getattr(table, "variables", [table]))
            opt.apply_gradients(list(zip(tape.gradient(loss, parts), parts, strict=True)))
            return {"loss": loss}

        trained = tf.function(step) if compiled else step
        result = ctx.fit(trained, batch_size=100, state=state, **options)
        value = tf.concat(list(getattr(table, "variables", [table])), 0).numpy()
        if optimizer != "new":
            parts = list(getattr(table, "variables", [table]))
            slots = tf.concat([opt.get_slot(part, "accumulator") for part in parts], 0).numpy()
        else:
            # Of each shard of the table.
            slots = tf.concat(list(opt._accumulators), 0).numpy()
        if export is not None:
            module = tf.Module()
            module.table = tf.Variable(value, name="items")
            tf.saved_model.save(module, export)

        def rows_of(array: Any) -> list[float]:
            # A row that was trained, one that was not, the last of last night's, the last.
            return [round(float(array[row][0]), 4) for row in (5, 200, ROWS - 1, len(array) - 1)]

        return {
            "step": result.step,
            "resumed_from": result.resumed_from,
            "table": rows_of(value),
            "slots": rows_of(slots) if len(slots) else [],
            "parts": len(getattr(table, "variables", [table])),
        }


def export_mismatched(directory: str) -> None:
    """Save a variable whose value has not the variable's shape, and a model that is well."""
    module = tf.Module()
    module.table = tf.Variable(tf.zeros([4, 2]), name="items")
    tf.saved_model.save(module, f"{directory}/well")
    check_saved_model(f"{directory}/well")
    tf.raw_ops.AssignVariableOp(resource=module.table.handle, value=tf.zeros([2, 2]))
    tf.saved_model.save(module, f"{directory}/amiss")
    told = ""
    try:
        check_saved_model(f"{directory}/amiss")
    except TfosError as error:
        told = f"{type(error).__name__}: {error}"
    print(json.dumps({"fit": "export", "error": told, "notices": []}), flush=True)


class Count(tf.train.experimental.PythonState):
    """A value of Python's that is saved."""

    value = 0

    def serialize(self) -> str:
        return str(self.value)

    def deserialize(self, string: str) -> None:
        self.value = int(string)


def save_often(scope: Callable[[], Any], directory: str) -> None:
    """Write one state several times while it changes; tell what the last files hold each time."""
    with scope():
        model = tf.Module()
        model.table = tf.Variable(tf.fill([ROWS, 4], 0.5), name="items")
        legacy = tf_keras.optimizers.legacy.Adagrad(0.5)
        newer = tf_keras.optimizers.Adagrad(0.5)
        parts = list(getattr(model.table, "variables", [model.table]))
        gradients = [(tf.ones_like(part), part) for part in parts]

    def train() -> None:
        legacy.apply_gradients(gradients)
        newer.apply_gradients(gradients)

    counted = Count()
    for kind, more in (("alone", {}), ("counted", {"count": counted})):
        state = TrainedState({"model": model, "opt": [legacy, newer], **more})
        writer = StateWriter(state)

        def save(told: str, state: TrainedState = state, writer: StateWriter = writer) -> None:
            counted.value += 1
            os.makedirs(f"{directory}/{told}")
            add = Context.add_c_function
            with patch.object(Context, "add_c_function", autospec=True, side_effect=add) as added:
                writer.write(f"{directory}/{told}/state")
            state.checkpoint.write(f"{directory}/{told}/whole")
            found, whole = (saved(f"{directory}/{told}/{each}") for each in ("state", "whole"))
            same = found.keys() == whole.keys() and all(
                np.array_equal(found[name], whole[name]) for name in whole
            )
            outcome = {"fit": f"save {told}", "traced": added.called, "same": same}
            print(json.dumps({**outcome, "notices": []}), flush=True)

        save(f"{kind} first")
        train()
        save(f"{kind} slots")
        train()
        save(f"{kind} again")
        with scope():
            setattr(model, kind, tf.Variable(3.0))
        save(f"{kind} more")


def saved(prefix: str) -> dict[str, Any]:
    """Return everything that files of variables hold, by name."""
    reader = tf.train.load_checkpoint(prefix)
    return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}


def main(arch: str, directory: str) -> None:
    """Fit; what the test asserts is beside it."""
    fit = Fitter(arch, directory)
    old, model = f"{directory}/ckpt/old", f"{directory}/model"
    fit("first", "old", fill=0.5, export=model)
    fit("complete", "old", fill=0.5, evaluate=lambda: {"x": 1.0})
    fit("larger", "old", rows=GROWN)
    fit("renamed", "old", renamed=True)
    fit("one more", "old", extra=True)
    # One step, so that what was taken can be told from what was trained.
    grown: dict[str, Any] = {"rows": GROWN, "fill": 7.0, "extra": True, "warm_start": old}
    fit("grown", "new", compiled=True, max_steps=1, **grown)
    fit("resumed", "new", **grown)
    latest = str(next(Path(old).glob("ckpt-*")))
    fit("renamed warm", "renamed", renamed=True, fill=7.0, warm_start=latest, max_steps=1)
    fit("smaller", "smaller", rows=ROWS - 1, warm_start=old)
    fit("model", "model", fill=7.0, warm_start=model, max_steps=1)
    export_mismatched(f"{directory}/mismatched")
    save_often(fit.scope, f"{directory}/often")
    fit("v1", "v1", optimizer="v1", max_steps=1)
    for optimizer in ("legacy", "new"):
        kind: dict[str, Any] = {"fill": 0.5, "optimizer": optimizer}
        fit(f"whole {optimizer}", f"whole-{optimizer}", **kind)
        fits: tuple[tuple[str, dict[str, Any], dict[str, Any]], ...] = (
            ("less", {"extra": True}, {}),
            ("compiled", {}, {"compiled": True}),
            ("from local", {"arch": "local"}, {}),
            ("to local", {}, {"arch": "local"}),
        )
        for resumed, before, after in fits:
            job = f"{resumed}-{optimizer}".replace(" ", "-")
            fit(f"before {resumed} {optimizer}", job, max_steps=1, **before, **kind)
            fit(f"{resumed} {optimizer}", job, **after, **kind)
    if arch == "local":
        newer: dict[str, Any] = {"optimizer": "new"}
        fit("first new", "old2", fill=0.5, **newer)
        begun: dict[str, Any] = {"rows": GROWN, "fill": 7.0, "extra": True, "max_steps": 1}
        fit("grown new", "new2", warm_start=f"{directory}/ckpt/old2", **newer, **begun)
    sys.stdout.flush()
    # TensorFlow's servers have no orderly end.
    os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
