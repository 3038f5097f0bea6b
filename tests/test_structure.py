"""The house: one name for one file, unless two are each other's counterparts."""

from __future__ import annotations

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
