"""The time model of docs/ranks.md against measurements: two ranks over a network that is throttled.

Each measurement is in a network namespace of its own, where `tc` limits the loopback device, and
each rank in a PID namespace, so that no memory is shared: all values go through that device. Both
directions share it, so a limit of 2 Gbit/s is a network of 1 Gbit/s. What is timed is the exchange
itself, with gradients that are made up: the processors need not be quiet.

- alone: backward is over when the exchange begins;
- behind backward: the rest of backward takes as long as the exchange should, and is a wait. Of the
  time of both, what exceeds that of backward is told;
- with a thread: the same, while a thread of Open MPI's goes on with what was begun.

Needs root, `ip` and `tc`, and Open MPI.

    python benchmarks/throttled.py [--gbits 0.5 1 2] [--nets LeNet AlexNet] [--rounds N]
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from typing import List

import numpy as np
from machine import describe
from ranks import NETS, RANKS, bytes_sent
from rich.table import Table
from tables import console, print_machine

from caffe_pysgd.hosts.ranks.exchange import Exchange
from caffe_pysgd.hosts.ranks.launch import find_mpiexec, mpi_environment, placing
from caffe_pysgd.hosts.ranks.world import World, started_by_mpi
from caffe_pysgd.update import Parameter

LAST = 25_000  # values of the first layers, whose gradients come last

THROTTLE = """
ip link set lo up
tc qdisc add dev lo root tbf rate {gbit}gbit burst 80kb latency 200ms
export OMPI_MCA_pml=ob1 OMPI_MCA_btl=tcp,self OMPI_MCA_btl_tcp_if_include=lo
export PRTE_MCA_prte_if_include=lo
exec "$@"
"""
ALONE = ["unshare", "--pid", "--fork", "--mount-proc"]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gbits", type=float, nargs="+", default=[0.5, 1, 2])
    parser.add_argument("--nets", nargs="+", choices=NETS, default=["LeNet", "AlexNet"])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--backward", type=float, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if started_by_mpi() > 1:
        exchange(NETS[arguments.nets[0]], arguments.rounds, arguments.backward)
        return
    print_machine(describe())
    table = Table(title=f"{RANKS} ranks: ms that the exchange takes")
    for column in ("net", "Gbit/s", "bytes / speed", "alone", "behind backward", "with a thread"):
        table.add_column(column, justify="left" if column == "net" else "right")
    for net in arguments.nets:
        for gbit in arguments.gbits:
            expected = 8 * bytes_sent(NETS[net], RANKS) / gbit
            ways = (0, 0), (expected, 0), (expected, 1)
            took = [measure(net, gbit, arguments.rounds, *way) for way in ways]
            table.add_row(net, f"{gbit:g}", *(f"{ms:.1f}" for ms in (expected, *took)))
    console().print(table)


def measure(net: str, gbit: float, rounds: int, backward: float, threads: int) -> float:
    """Return the median of the milliseconds that an exchange adds to a backward."""
    limit = ["unshare", "--net", "sh", "-c", THROTTLE.format(gbit=RANKS * gbit), "sh"]
    mpiexec = find_mpiexec()
    command = [*limit, mpiexec, *placing(mpiexec), "-n", str(RANKS), *ALONE, sys.executable]
    command += [__file__, "--nets", net, "--rounds", str(rounds), "--backward", str(backward)]
    thread = {"OMPI_MCA_btl_tcp_progress_thread": str(threads)}
    environment = mpi_environment({**os.environ, **thread})
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return statistics.median(map(float, done.stdout.split()))


def exchange(millions: float, rounds: int, backward: float) -> None:
    """Exchange gradients, as one of the ranks; rank 0 prints what each time took."""
    world = World(RANKS, timeout=60)
    sizes = (LAST, round(1e6 * millions) - LAST)
    arrays = [(np.zeros(size, np.float32), np.ones(size, np.float32)) for size in sizes]
    parameters = [Parameter(str(n), *both, 1, 1) for n, both in enumerate(arrays)]
    together = Exchange(world, parameters, [], [[1]], extra=2)
    for number in range(rounds + 1):
        world.comm.Barrier()
        began = time.perf_counter()
        together.ready(0)
        time.sleep(backward / 1000)
        together.complete(number)
        took: List[float] = world.comm.allgather(1000 * (time.perf_counter() - began) - backward)
        if number and not world.rank:
            print(max(took))


if __name__ == "__main__":
    main()
