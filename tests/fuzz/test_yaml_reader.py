"""A YAML of any kind is a configuration, or refused in one short line."""

from __future__ import annotations

from pathlib import Path
from typing import List

import pytest
from helpers.mutations import mutations
from helpers.places import PROJECT

from caffe_pysgd.errors import UserError
from caffe_pysgd.run.configuration import read_configuration

CORPUS = [
    *(path.read_bytes() for path in sorted((PROJECT / "examples/mnist").glob("*.yaml"))),
    b"""
solver: solver.prototxt
run_dir: runs/a
update:
  rule: adam
  base_lr: 1e-3
  lr_table: {0: 0.1, 100: 0.01}
  stepvalue: [10, 20]
  params:
    - {match: "conv1/*", lr_mult: 2, freeze_until: 10}
    - {match: "ip1/0", rule: "my_rules:Signum", momentum: 0.5}
audit: {every: 10, histograms: 100, probes: [{param: conv1/0, index: [0, 0, 1, 2]}]}
""",
    b"solver: &a solver.prototxt\nupdate: {rule: *a}\n",
]
TOKENS = [
    b"!!int x", b"!!bool x", b"!!float x", b"!!map [a]", b"!!set {a}", b"!!binary x", b"!!omap [a]",
    b"!!timestamp x", b"!!python/object:os.system x", b"!!null x", b"!!seq {a: b}", b"!!str [a]",
    b"!!pairs [a]", b"0x_", b"0b_", b"0o_", b"1:60:61", b"2020-13-45", b"2020-01-01T99:99:99Z",
    b"-.inf", b".nan", b"1e999", b"9" * 400, b"[" * 1000, b"{a: " * 300, b"- " * 300,
    b'"\\ud800"', b'"\\0"', b"\0", b"\xff\xfe", b"\xef\xbb\xbf", b"\x85", b"\xc2\x85",
    b"&a [*a]", b"&a {b: *a}", b"*nobody", b"<<: *a", b"<<: 3", b"? [a, b] : c", b"? {a: b}\n: c",
    b"---\n", b"...\n", b"%YAML 9.9\n", b"%TAG ! x\n", b"|\n  a", b">9", b"'", b'"', b"\t", b": ",
    b"- ", b"#", b"\n", b"\r", b" " * 200, b"@", b"`", b"%",
    b"a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\n"
    b"c: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\n"
    b"e: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: &f [*e,*e,*e,*e,*e,*e,*e,*e,*e]\n"
    b"g: &g [*f,*f,*f,*f,*f,*f,*f,*f,*f]\nupdate: *g\n",
]  # fmt: skip


def unexpected(folder: Path, count: int) -> List[str]:
    """Return what reading so many damaged files raised besides refusals."""
    found = []
    (folder / "solver.prototxt").touch()
    for number, content in enumerate(mutations(CORPUS, TOKENS, count)):
        path = folder / "run.yaml"
        path.write_bytes(content)
        try:
            read_configuration(path)
        except UserError as error:
            if len(str(error)) > 1000:
                found.append(f"{number}: a message of {len(str(error))} characters")
        except Exception as error:
            found.append(f"{number}: {type(error).__name__}: {error}: {content[:80]!r}")
    return found


def test_damaged_files_are_refused(workdir: Path) -> None:
    assert unexpected(workdir, 600) == []


@pytest.mark.slow
def test_ten_thousand_damaged_files_are_refused(workdir: Path) -> None:
    assert unexpected(workdir, 10_000) == []
