"""Start, show and stop a YARN and HDFS on this machine: ``python -m tfos.testing.yarn``."""

from __future__ import annotations

import json
import os
import shutil
import sys
from dataclasses import asdict
from pathlib import Path

import click

from tfos.errors import TfosError
from tfos.files.cache import cache_directory
from tfos.testing.yarn.cluster import ClusterRecord, YarnCluster
from tfos.testing.yarn.jars import default_cache

_directory = click.option(
    "--directory",
    type=click.Path(path_type=Path, file_okay=False),
    default=cache_directory(os.environ, "yarn"),
    show_default="~/.cache/tfos/yarn",
    help="Where the cluster keeps its data, logs and configuration.",
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Run a real YARN and HDFS on this machine: to try jobs, and for tests.

    A ResourceManager, NodeManagers, a NameNode and a DataNode, each a JVM of its own on loopback;
    about 1 GB of memory. Their jars are fetched by Maven, once.
    """


@main.command()
@_directory
@click.option("--node-managers", default=2, show_default=True, help="NodeManagers.")
@click.option("--memory", default=6144, show_default=True, help="MiB each has to give.")
@click.option("--cores", default=8, show_default=True, help="Cores each has to give.")
@click.option(
    "--jars",
    type=click.Path(path_type=Path, file_okay=False),
    help=f"Where the jars are kept. Default: {default_cache()}",
)
def start(directory: Path, node_managers: int, memory: int, cores: int, jars: Path | None) -> None:
    """Start a cluster and leave it running; prints the variables that lead to it."""
    _make_room(directory)
    cluster = YarnCluster(
        directory,
        node_managers=node_managers,
        memory_mb=memory,
        cores=cores,
        jars=jars,
        detached=True,
    )
    click.echo("starting YARN and HDFS: 10 to 15 s", err=True)
    cluster.start()
    for name, value in cluster.environment.items():
        click.echo(f"export {name}={value}")
    click.echo(f"# HDFS: {cluster.record.hdfs}   ResourceManager: {cluster.record.manager}")


@main.command()
@_directory
def status(directory: Path) -> None:
    """Print where the cluster's servers are, and how many processes it has."""
    record = ClusterRecord.read(directory)
    click.echo(json.dumps({**asdict(record), "processes": len(record.processes())}, indent=2))


@main.command()
@_directory
def stop(directory: Path) -> None:
    """Kill every server and container, and remove the directory."""
    ClusterRecord.read(directory).kill()
    shutil.rmtree(directory, ignore_errors=True)


def _make_room(directory: Path) -> None:
    """Make an empty directory, in place of what an ended cluster left there."""
    if (directory / "cluster.json").exists():
        if ClusterRecord.read(directory).processes():
            raise click.ClickException(
                f"a cluster runs in {directory}: stop it, or choose another --directory"
            )
        shutil.rmtree(directory)
    directory.mkdir(parents=True, exist_ok=True)
    if any(directory.iterdir()):
        raise click.ClickException(f"{directory} holds other files: choose another --directory")


if __name__ == "__main__":
    try:
        main()
    except TfosError as error:
        sys.exit(f"error: {error}")
