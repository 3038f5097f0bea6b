"""Which layers a net state includes: the same ones that Caffe's own ``Net::FilterNet`` keeps."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, List

import caffe
import pytest
from helpers.failures import refusal
from helpers.nets import SMALL, STAGED, write_solver
from helpers.runs import caffe_train
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from caffe_pysgd.errors import UserError
from caffe_pysgd.hosts.in_net.inject import write_injected
from caffe_pysgd.run.resolve import resolve
from caffe_pysgd.stock import pycaffe
from caffe_pysgd.stock.net_file import included_layers, read_net
from caffe_pysgd.stock.prototxt import to_text
from caffe_pysgd.stock.solver_file import read_solver, train_state

STAGES = ["a", "b", ""]
levels = st.integers(-2, 2)
some_stages = st.lists(st.sampled_from(STAGES), max_size=2)


@st.composite
def rules(draw: Any) -> Any:
    messages = pycaffe.messages()
    rule = messages.NetStateRule(stage=draw(some_stages), not_stage=draw(some_stages))
    for field, values in (
        ("phase", st.sampled_from([messages.TRAIN, messages.TEST])),
        ("min_level", levels),
        ("max_level", levels),
    ):
        if draw(st.booleans()):
            setattr(rule, field, draw(values))
    return rule


@st.composite
def nets(draw: Any) -> Any:
    """Layers that need no other layer, each with include rules or exclude rules."""
    net = pycaffe.messages().NetParameter()
    for number in range(draw(st.integers(1, 6))):
        layer = net.layer.add(name=f"layer{number}", type="DummyData", top=[f"top{number}"])
        layer.dummy_data_param.shape.add(dim=[1])
        kind = draw(st.sampled_from(["include", "exclude"]))
        getattr(layer, kind).extend(draw(st.lists(rules(), max_size=3)))
    return net


def kept_by_caffe(net: Any, state: Any) -> List[str]:
    with tempfile.NamedTemporaryFile("w", suffix=".prototxt") as file:
        file.write(to_text(net))
        file.flush()
        built = caffe.Net(file.name, state.phase, level=state.level, stages=list(state.stage))
    return list(built._layer_names)


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    net=nets(),
    phase=st.sampled_from([0, 1]),
    level=levels,
    stages=st.lists(st.sampled_from(STAGES)),
)
def test_the_layers_that_a_state_includes_are_those_that_caffe_keeps(
    net: Any, phase: int, level: int, stages: List[str]
) -> None:
    state = pycaffe.messages().NetState(phase=phase, level=level, stage=stages)
    assert [layer.name for layer in included_layers(net, state)] == kept_by_caffe(net, state)


def test_a_layer_with_include_and_exclude_rules_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "net.prototxt"
    path.write_text('layer { name: "both" include { phase: TRAIN } exclude { stage: "a" } }')
    said = refusal(included_layers, read_net(path), pycaffe.messages().NetState())
    assert said == "layer 'both': give include rules or exclude rules, not both"


# In the solver's train_state, in the net's state, and on the command line.
STATES = {
    "nothing said": ("", "", 0, ()),
    "the solver's stage": ('stage: "wide"', "", 0, ()),
    "the net's stage": ("", 'stage: "wide"', 0, ()),
    "the command line's stage": ("", "", 0, ("wide",)),
    "stages of all three": ('stage: "a"', 'stage: "b"', 0, ("wide", "c")),
    "stages that exclude each other": ('stage: "narrow"', "", 0, ("c",)),
    "the command line's level": ("", "", 2, ()),
    # `caffe train` always sets the level, to 0 without --level.
    "the solver's level": ("level: 2", "", 0, ()),
    "the net's level": ("", "level: 2", 0, ()),
}


@pytest.mark.parametrize("name", STATES)
def test_the_train_net_has_the_layers_that_caffe_train_gives_it(workdir: Path, name: str) -> None:
    in_solver, in_net, level, stages = STATES[name]
    source = write_solver(workdir, STAGED + f"state {{ {in_net} }}", max_iter=0)
    source.write_text(source.read_text() + f"train_state {{ {in_solver} }}")
    solver = read_solver(source)
    net = read_net(Path(solver.net))
    state = train_state(solver, net, level, stages)
    flags = [f"--level={level}", f"--stage={','.join(stages)}"]
    log = caffe_train(source, *(flags if level or stages else [])).stderr
    created = [
        line.split("Creating Layer ")[1] for line in log.splitlines() if "Creating Lay" in line
    ]
    ours = [layer.name for layer in included_layers(net, state)]
    assert [name for name in created if "split" not in name] == ours


def test_the_injected_net_trains_the_layers_of_the_stage_and_no_others(workdir: Path) -> None:
    run = resolve(write_solver(workdir, STAGED, max_iter=2), level=2, stages=("wide",))
    assert [p.name for p in run.parameters] == [
        "wide/0", "wide/1", "extra/0", "extra/1", "out/0", "out/1",
    ]  # fmt: skip
    injected = write_injected(run, workdir / "run")
    trained = caffe_train(injected, "--level=2", "--stage=wide")
    assert trained.returncode == 0, trained.stderr
    assert "rule sgd, 6 parameters" in trained.stderr


def test_a_train_net_in_phase_test_is_refused(workdir: Path) -> None:
    solver = write_solver(workdir, SMALL)
    solver.write_text(solver.read_text() + "train_state { phase: TEST }\n")
    with pytest.raises(UserError, match="train_state: phase: found TEST"):
        resolve(solver)
