"""The house: one name for one file, unless two are counterparts; and who imports what."""

from __future__ import annotations

import subprocess
import sys
from collections import defaultdict
from typing import Dict, Set

from helpers.places import PROJECT

# What Caffe has, and what it never got: of rules, of policies, of kernels.
COUNTERPARTS = {"caffe.py", "beyond.py"}
# What prototxts of version 0.1 name.
KEPT = {"hosts/taps.py"}


def test_no_two_files_have_one_name() -> None:
    package = PROJECT / "caffe_pysgd"
    places: Dict[str, Set[str]] = defaultdict(set)
    for path in package.rglob("*.py"):
        where = path.relative_to(package)
        # A command is the counterpart of what it runs.
        if where.parts[0] != "cli" and path.name != "__init__.py" and str(where) not in KEPT:
            places[path.name].add(str(where))
    assert len(places) > 80
    assert [
        sorted(p) for name, p in places.items() if len(p) > 1 and name not in COUNTERPARTS
    ] == []


def test_the_layers_inside_caffe_import_no_more_than_an_update_takes() -> None:
    program = (
        "import sys, caffe_pysgd.hosts.in_net.layers, caffe_pysgd.hosts.in_net.taps; "
        "print({'pydantic', 'yaml', 'google.protobuf', 'click'} & set(sys.modules))"
    )
    command = [sys.executable, "-c", program]
    assert subprocess.check_output(command, text=True).strip() == "set()"
