"""The hook is what pycaffe's own classes are, and not only looks like it."""

from __future__ import annotations

from pathlib import Path

import caffe
import numpy as np
from helpers.nets import write_solver

from caffe_pysgd import take_over


def test_it_is_a_genuine_pycaffe_solver(workdir: Path) -> None:
    path = write_solver(workdir, test_iter=[1], test_interval=5)
    solver = take_over(str(path))
    assert isinstance(solver, caffe.SGDSolver)
    assert isinstance(solver.net, caffe.Net)
    assert isinstance(solver.test_nets[0], caffe.Net)
    assert (solver.iter, solver.lr, solver.param.max_iter) == (0, np.float32(0.01), 20)
    solver.step(2)
    assert solver.iter == 2
