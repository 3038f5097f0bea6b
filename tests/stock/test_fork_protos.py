"""Solvers of forks, whose caffe.proto has other fields: their own message decides what is known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from caffe_pysgd.run.resolve import hyperparameters
from caffe_pysgd.stock import pycaffe
from caffe_pysgd.stock.solver_file import _upgrade_type


def solver_of_a_fork() -> Any:
    """Return a SolverParameter with SSD's plateau_winsize, a type of its own, and no rms_decay."""
    described = pycaffe.messages().DESCRIPTOR.serialized_pb
    file = descriptor_pb2.FileDescriptorProto.FromString(described)
    (kind,) = (one for one in file.message_type if one.name == "SolverParameter")
    field = descriptor_pb2.FieldDescriptorProto
    kind.field.add(name="plateau_winsize", number=43, type=field.TYPE_INT32, label=3)
    (types,) = (one for one in kind.enum_type if one.name == "SolverType")
    types.value.add(name="FTRL", number=6)
    fields = [one for one in kind.field if one.name != "rms_decay"]
    del kind.field[:]
    kind.field.extend(fields)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    found = pool.FindMessageTypeByName("caffe.SolverParameter")
    if hasattr(message_factory, "GetMessageClass"):
        return message_factory.GetMessageClass(found)()
    return message_factory.MessageFactory(pool).GetPrototype(found)()


def test_a_field_that_only_the_fork_has_is_read() -> None:
    solver = solver_of_a_fork()
    solver.lr_policy, solver.gamma = "plateau", 0.5
    solver.plateau_winsize.extend([300, 200])
    h = hyperparameters(solver, {})
    assert (h.lr_policy, h.plateau_winsize) == ("plateau", (300, 200))


def test_a_field_that_the_fork_lacks_has_caffes_default() -> None:
    assert hyperparameters(solver_of_a_fork(), {}) == hyperparameters(
        pycaffe.messages().SolverParameter(), {}
    )


def test_a_type_of_the_forks_own_keeps_its_name() -> None:
    solver = solver_of_a_fork()
    for number, name in ((6, "FTRL"), (1, "Nesterov"), (5, "Adam")):
        solver.solver_type = number
        solver.ClearField("type")
        _upgrade_type(Path("solver.prototxt"), solver)
        assert solver.type == name
