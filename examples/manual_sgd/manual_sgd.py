"""Caffe's SGD by hand, in pycaffe: what goes wrong, and how to get exactly the weights of step().

    python examples/manual_sgd/manual_sgd.py --plot drift.svg

Run it from the project's folder, after `make data`. It trains LeNet on MNIST with `solver.step(1)`,
then once more with each loop in loops.py, and says how far apart the weights are: the L2 norm of
the difference over all of them. docs/manual-sgd.md tells the story.
"""

import argparse
import os
import tempfile

os.environ.setdefault("GLOG_minloglevel", "2")  # before Caffe is imported: be quiet

import caffe
import numpy as np
from loops import LOOPS, LR, learnable
from rich.console import Console
from rich.progress import track
from rich.table import Table

SOLVER = f"""
net: "examples/mnist/lenet_train_test.prototxt"
base_lr: {LR}  lr_policy: "fixed"  momentum: %g  weight_decay: 0
random_seed: 52  solver_mode: CPU
"""
DIVERGED = 1e6  # stop there: with NaN, Caffe's max pooling writes outside its memory


def new_solver(momentum):
    """Return a solver with the same first weights and the same batches as every other one."""
    with tempfile.NamedTemporaryFile("w", suffix=".prototxt") as file:
        file.write(SOLVER % momentum)
        file.flush()
        return caffe.SGDSolver(file.name)


def weights(net):
    return np.concatenate([blob.data.ravel() for blob, _ in learnable(net)])


def train_natively(momentum, iterations):
    """Return the weights after each iteration: 1.7 MB each."""
    solver, after = new_solver(momentum), []
    for _ in range(iterations):
        solver.step(1)
        after.append(weights(solver.net))
    return after


def drift(loop, momentum, native):
    """Return the distance from the native weights after each iteration; inf once it diverged."""
    net = new_solver(momentum).net
    distances = np.full(len(native), np.inf)
    for iteration, (expected, _) in enumerate(zip(native, loop(net))):
        distance = np.linalg.norm(weights(net).astype(np.float64) - expected)
        if not distance < DIVERGED:
            break
        distances[iteration] = distance
    return distances


def measure(iterations):
    """Return the drift of each loop. They run one after the other: a process's solvers share one
    random generator, which the constructor seeds."""
    native, drifts = {}, {}
    for label, (loop, momentum) in track(LOOPS.items(), "training", transient=True):
        if momentum not in native:
            native.clear()  # 0.5 GB for 300 iterations
            native[momentum] = train_natively(momentum, iterations)
        drifts[label] = drift(loop, momentum, native[momentum])
    return drifts


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--iterations", type=int, default=300, metavar="N")
    parser.add_argument("--plot", metavar="FILE", help="draw the drift (.svg, .png, .pdf)")
    options = parser.parse_args()
    drifts = measure(options.iterations)
    moments = sorted({n for n in (5, 100, 300, options.iterations) if n <= options.iterations})
    table = Table("by hand", "momentum", *(f"after {n}" for n in moments))
    for label, distances in drifts.items():
        cells = [f"{distances[n - 1]:.2g}".replace("inf", "diverged") for n in moments]
        style = "" if distances.any() else "bold"
        table.add_row(label, f"{LOOPS[label][1]:g}", *cells, style=style)
    Console().print(table)
    if options.plot:
        from drift_plot import plot  # beside this file; needs matplotlib

        plot(drifts, options.plot)


if __name__ == "__main__":
    main()
