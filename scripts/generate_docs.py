"""Write what the pages in docs/ say about flags and keys from the code.

    .venv/bin/python scripts/generate_docs.py

A page marks what is generated, and this rewrites it in place:

    <!-- generated: command train -->  usage and options, from click
    <!-- generated: keys audit -->     names, types and defaults, from the models of the YAML
    <!-- generated: notebook tutorial -->  examples/tutorial.ipynb, with what it printed and drew
    <!-- end -->

In a table of keys the meaning is written by hand and kept, and so is a default that is not a fixed
value. A test fails where a page is not what this would write.
"""

from __future__ import annotations

import json
import re
from base64 import b64decode
from pathlib import Path
from typing import (
    Any,
    Callable,
    Dict,
    Iterator,
    List,
    Literal,
    Sequence,
    Union,
    get_args,
    get_origin,
)

import click
import numpy as np
from pydantic import BaseModel

from caffe_pysgd.cli.main import commands
from caffe_pysgd.cli.options import VERBOSITY
from caffe_pysgd.experiments.sweep_file import (
    BudgetOptions,
    ObjectiveOptions,
    PrunerOptions,
    SweepOptions,
)
from caffe_pysgd.run.configuration import (
    AuditOptions,
    Configuration,
    ParameterGroup,
    RankOptions,
    SnapshotOptions,
    UpdateOptions,
)
from caffe_pysgd.stock import pycaffe
from caffe_pysgd.update import HyperParameters

PROJECT = Path(__file__).parents[1]
PAGES = PROJECT / "docs"
REGION = re.compile(r"(<!-- generated: (\w+) ([\w -]+) -->\n).*?(<!-- end -->)", re.DOTALL)
INT32 = 2**31 - 1


def generate(page: str) -> str:
    """Return a page with its marked regions as they should be."""
    return REGION.sub(lambda m: f"{m[1]}\n{_WRITERS[m[2]](m[3], m[0])}\n{m[4]}", page)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


# -- commands -----------------------------------------------------------------------------------


def write_command(name: str, _old: str) -> str:
    """Return the usage of a command, and a table of its options."""
    context = click.Context(commands, info_name="caffe-pysgd")
    command: Any = commands
    for part in name.split():
        command = command.get_command(context, part)
        context = click.Context(command, parent=context, info_name=part)
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    options = [
        one for one in command.params if isinstance(one, click.Option) and one not in VERBOSITY
    ]
    rows = [[_flag(one), _value(one.type), _default(one), one.help or ""] for one in options]
    text = f"```text\n{usage}\n```\n"
    return f"{text}\n{table(['Option', 'Value', 'Default', 'Meaning'], rows)}" if rows else text


def _flag(option: click.Option) -> str:
    names = ", ".join(f"`{name}`" for name in [*option.opts, *option.secondary_opts])
    takes_value = not option.is_flag and not isinstance(option.type, click.Choice)
    return f"{names[:-1]} {option.metavar}`" if takes_value and option.metavar else names


def _value(kind: Any) -> str:
    if isinstance(kind, click.Choice):
        return ", ".join(f"`{choice}`" for choice in kind.choices)
    if isinstance(kind, click.Path):
        return "path"
    number = "whole number" if isinstance(kind, click.types.IntParamType) else "number"
    if isinstance(kind, (click.IntRange, click.FloatRange)):
        return _range(number, kind.min, kind.max)
    return ""


def _range(kind: str, lowest: Any, highest: Any) -> str:
    low, high = lowest not in (None, -INT32, 0), highest not in (None, INT32, INT32 + 1)
    if high:
        return f"{kind}, {lowest} to {highest}"
    return f"{kind}, {lowest} or more" if low else kind


def _default(option: click.Option) -> str:
    if option.required:
        return "*required*"
    default = option.default
    if option.is_flag:
        return f"`{option.opts[0]}`" if default is True else ""
    if default is None or callable(default) or default in ("", 0) or "Sentinel" in repr(default):
        return ""
    return f"{default:g}" if isinstance(default, float) else f"`{default}`"


# -- keys of the YAML ---------------------------------------------------------------------------


def write_keys(name: str, old: str) -> str:
    """Return the table of a mapping's keys, with the meanings that the old one has."""
    written = {cells[0].strip("` "): cells for cells in _rows(old)}
    keys = sorted(_KEYS[name](), key=lambda one: [*written, one[0]].index(one[0]))
    rows = []
    for key, field, default in keys:
        kept = written.get(key, ["", "", "*none*", field.description or ""])
        kind = _kind([field.annotation, *field.metadata])
        shown = (
            "`{}`"
            if kind.startswith("mapping from") and default is not None
            else _shown(default) or kept[2]
        )
        rows.append([f"`{key}`", kind, shown, kept[-1]])
    title = "Caffe's default" if name == "of Caffe" else "Default"
    return table(["Key", "Type", title, "Meaning"], rows)


def _rows(region: str) -> Iterator[List[str]]:
    for line in re.findall(r"^\| (`\w+` \|.*) \|$", region, re.MULTILINE):
        yield [cell.strip() for cell in line.split(" | ")]


def _kind(hints: Sequence[Any]) -> str:
    """Return in words which values an annotation, with pydantic's constraints, allows."""
    hint, constraints = hints[0], list(hints[1:])
    inner = [one for one in get_args(hint) if one is not type(None)]
    if get_origin(hint) is Union:
        return _kind([inner[0], *constraints])
    if hasattr(hint, "__metadata__"):
        marks = [m for one in hint.__metadata__ for m in getattr(one, "metadata", [one])]
        return _kind([hint.__origin__, *marks, *constraints])
    if get_origin(hint) is Literal:
        return ", ".join(f"`{value}`" for value in inner)
    if get_origin(hint) is dict:
        values = _kind(inner[1:])
        plural = "lists of texts" if values == "list of texts" else f"{values}s"
        return f"mapping from {_kind(inner[:1])}s to {plural}"
    if get_origin(hint) is list:
        return (
            "list of mappings" if hasattr(inner[0], "model_fields") else f"list of {_kind(inner)}s"
        )
    if hint is int:
        lowest = max((c.ge for c in constraints if getattr(c, "ge", None) is not None), default=0)
        return _range("whole number", lowest, None)
    words: Dict[Any, str] = {
        float: "number",
        bool: "true or false",
        str: "text",
        Path: "path",
        Any: "value",
    }
    return words.get(hint, "mapping")


def _shown(default: Any) -> str:
    """Return a default as one writes it in a YAML; nothing if it is not a fixed value."""
    if isinstance(default, bool):
        return f"`{default}`".lower()
    if isinstance(default, (float, np.floating)):
        return re.sub(r"e([+-])0", r"e\1", f"{float(str(np.float32(default))):g}")
    if isinstance(default, int):
        return str(default)
    if isinstance(default, str):
        return f"`{default}`" if default else "*none*"
    if isinstance(default, (dict, BaseModel)):
        return "`{}`"
    return "`[]`" if hasattr(default, "__len__") else ""


def _of(model: Any, wanted: Callable[[str], bool]) -> Any:
    found = {name: field for name, field in model.model_fields.items() if wanted(name)}
    return [
        (name, field, None if field.is_required() else field.default)
        for name, field in found.items()
    ]


def _caffes() -> Any:
    solver = pycaffe.messages().SolverParameter()
    return [
        (name, UpdateOptions.model_fields[name], getattr(solver, name))
        for name in HyperParameters.__dataclass_fields__
        if name not in HyperParameters.beyond_caffe()
    ]


def _beyond() -> Any:
    defaults = HyperParameters()
    return [
        (name, UpdateOptions.model_fields[name], getattr(defaults, name))
        for name in HyperParameters.beyond_caffe()
    ]


def _is_own(name: str) -> bool:
    return name not in HyperParameters.__dataclass_fields__


_KEYS: Dict[str, Callable[[], Any]] = {
    "of a run": lambda: _of(Configuration, bool),
    "of update": lambda: _of(UpdateOptions, _is_own),
    "of Caffe": _caffes,
    "beyond Caffe": _beyond,
    "of a group": lambda: _of(ParameterGroup, _is_own),
    "of snapshots": lambda: _of(SnapshotOptions, bool),
    "of ranks": lambda: _of(RankOptions, bool),
    "of a sweep": lambda: _of(SweepOptions, bool),
    "of an objective": lambda: _of(ObjectiveOptions, bool),
    "of a budget": lambda: _of(BudgetOptions, bool),
    "of a pruner": lambda: _of(PrunerOptions, bool),
    "of audit": lambda: _of(AuditOptions, lambda name: name != "on_nonfinite"),  # of version 0.1
}
# -- notebooks ----------------------------------------------------------------------------------


def write_notebook(name: str, _old: str) -> str:
    """Return a notebook as Markdown. Its pictures are files, see ``pictures``."""
    parts = []
    for number, cell in enumerate(_cells(name)):
        text = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(text.replace("](../docs/", "]("))
            continue
        parts.append(f"```py\n{text}\n```")
        parts += [_output(output, f"{name}-{number}") for output in cell["outputs"]]
    return "\n\n".join(parts) + "\n"


def _cells(name: str) -> Any:
    return json.loads((PROJECT / "examples" / f"{name}.ipynb").read_text(encoding="utf-8"))["cells"]


def _output(output: Any, picture: str) -> str:
    data = output.get("data", {"text/plain": output.get("text")})
    if "image/png" in data:
        return f"![What is drawn](images/{picture}.png)"
    if "text/html" in data:
        html = re.sub(r"<style.*?</style>\n?", "", "".join(data["text/html"]), flags=re.DOTALL)
        html = html.replace('<table border="1" class="dataframe">', "<table>")  # as all others
        return f'<div class="output">{html}</div>'
    return f"```text\n{''.join(data['text/plain']).rstrip()}\n```"


def pictures(name: str) -> Dict[Path, bytes]:
    """Return the pictures that a notebook drew, by the file in the documentation."""
    return {
        PAGES / "images" / f"{name}-{number}.png": b64decode(output["data"]["image/png"])
        for number, cell in enumerate(_cells(name))
        for output in cell.get("outputs", [])
        if "image/png" in output.get("data", {})
    }


_WRITERS = {"command": write_command, "keys": write_keys, "notebook": write_notebook}


if __name__ == "__main__":
    for path in sorted(PAGES.rglob("*.md")):
        page = path.read_text(encoding="utf-8")
        if generate(page) != page:
            path.write_text(generate(page), encoding="utf-8")
            print(path.relative_to(PROJECT))
    for path, content in pictures("tutorial").items():
        path.write_bytes(content)
