"""Measure how long N role hosts take to meet: connect, register, and all read the frozen cluster.

Each host is a role host's session in a thread of its own, in a few processes beside one real
ZooKeeper server; all on one machine, so that server, driver and every host share its cores. The
cluster's document is read by every host, but made into objects once a process: real hosts do that
each on its own machine, in the time printed as `parse`.

    python benchmarks/registry_rendezvous.py [--hosts 100 1000] [--large] [--processes 4]
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import secrets
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

from tfos.launcher.role.membership import HostSession, Ordered
from tfos.registry import tree
from tfos.registry.contract import Generation, Member
from tfos.registry.documents import decode, encode
from tfos.registry.embedded import EmbeddedZooKeeper
from tfos.registry.identity import RunIdentity
from tfos.registry.zookeeper import ZooKeeperRegistry
from tfos.topology import ClusterSpec, Endpoint, Role, TaskKey

_BOUND_S = 240.0


class Run(NamedTuple):
    """Where the hosts of one measurement meet."""

    address: str
    root: str
    secret: str
    identity: RunIdentity

    def connect(self, *, create: bool) -> ZooKeeperRegistry:
        """Open a session with time-outs wide enough for an overloaded machine."""
        return ZooKeeperRegistry(
            self.address,
            self.root,
            self.secret,
            session_timeout_s=120,
            connect_timeout_s=60,
            identity=self.identity,
            create=create,
        )


class Took(NamedTuple):
    """Seconds of each part, and until the median and the last host had read the generation."""

    register: float
    list_: float
    median_read: float
    last_read: float
    parse: float


def play(run: Run, index: int) -> tuple[float, HostSession]:
    """Be one host; return the instant at which it had read the generation, and its session."""
    endpoint = Endpoint(f"host-{index}.cluster.example", 10_000 + index % 50_000)
    member = Member(TaskKey(Role.WORKER, index), endpoint, endpoint.host, os.getpid())
    session = HostSession(lambda: run.connect(create=False), member, patience_s=_BOUND_S)
    session.join()
    while (heard := session.notices.get(timeout=_BOUND_S)) == Ordered(0, 0):
        pass
    if heard != Ordered(1, 0):
        raise SystemExit(f"{member.key} heard {heard} in place of the first generation")
    session.registry.generation(1)
    return time.monotonic(), session


def share_parsing() -> None:
    """Have this process's hosts make the generation into objects once between them."""
    decode, lock, parsed = tree.decode, threading.Lock(), []

    def decode_once(kind: type, data: bytes, what: str) -> Any:
        if kind is not Generation:
            return decode(kind, data, what)
        with lock:
            if not parsed:
                parsed.append(decode(kind, data, what))
        return parsed[0]

    tree.decode = decode_once


def play_some(run: Run, indices: range, pipe: Connection) -> None:
    """Be the hosts of `indices` from a word on; report when each had read the generation."""
    # Hundreds of threads that ask for the interpreter every 5 ms would measure just that; these
    # give it up by themselves, at the next thing they wait for.
    sys.setswitchinterval(1.0)
    share_parsing()
    pipe.send("ready")
    pipe.recv()
    with ThreadPoolExecutor(len(indices)) as pool:
        played = list(pool.map(play, [run] * len(indices), indices))
    pipe.send([instant for instant, _ in played])
    for _, session in played:
        session.close()


def measure(address: str, identity: RunIdentity, hosts: int, processes: int) -> Took:
    """Bring `hosts` together once."""
    root = f"/tfos/benchmark/run-{secrets.token_hex(4)}"
    run = Run(address, root, secrets.token_hex(16), identity)
    driver = run.connect(create=True)
    driver.attend()
    complete = threading.Event()
    driver.watch_members(lambda keys: complete.set() if len(keys) == hosts else None)
    spawn = multiprocessing.get_context("spawn")
    pipes, children = [], []
    for number in range(processes):
        pipe, theirs = spawn.Pipe()
        share = range(number, hosts, processes)
        children.append(spawn.Process(target=play_some, args=(run, share, theirs)))
        children[-1].start()
        pipes.append(pipe)
    for pipe in pipes:
        pipe.recv()
    started = time.monotonic()
    for pipe in pipes:
        pipe.send("go")
    if not complete.wait(_BOUND_S):
        raise SystemExit(f"only {len(driver.members())} of {hosts} hosts registered")
    registered = time.monotonic()
    cluster = ClusterSpec({key: found.endpoint for key, found in driver.members().items()})
    listed = time.monotonic()
    driver.publish_generation(Generation(1, cluster))
    read = sorted(instant for pipe in pipes for instant in pipe.recv())
    for child in children:
        child.join()
    driver.erase()
    driver.close()
    document = encode(Generation(1, cluster), "the generation")
    parsing = time.monotonic()
    decode(Generation, document, "the generation")
    return Took(
        registered - started,
        listed - registered,
        read[hosts // 2] - listed,
        read[-1] - listed,
        time.monotonic() - parsing,
    )


def main() -> None:
    """Print one line a cluster size."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hosts", type=int, nargs="+", default=[100, 1000])
    parser.add_argument("--large", action="store_true", help="3000 hosts too")
    parser.add_argument("--processes", type=int, default=4)
    options = parser.parse_args()
    names = ["hosts", "register", "list", "median read", "last read", "all", "parse"]
    print("".join(f"{name:>12}" for name in names))
    for hosts in [*options.hosts, *([3000] if options.large else [])]:
        identity = RunIdentity.draw()
        with EmbeddedZooKeeper(identity=identity, start_timeout_s=60) as server:
            took = measure(server.address, identity, hosts, options.processes)
        total = took.register + took.list_ + took.last_read
        seconds = [took.register, took.list_, took.median_read, took.last_read, total, took.parse]
        print(f"{hosts:>12}" + "".join(f"{part:>10.3f} s" for part in seconds), flush=True)


if __name__ == "__main__":
    main()
