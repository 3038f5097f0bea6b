"""``caffe-pysgd explain``: one weight's whole arithmetic, as on a board."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, List, Optional

import click

from caffe_pysgd.cli.completion import recorded_iterations, recorded_parameters
from caffe_pysgd.cli.options import (
    ITERATION,
    allow_user_code_option,
    json_option,
    no_user_code_option,
)
from caffe_pysgd.cli.progress import quiet_caffe, showing
from caffe_pysgd.errors import SettingError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from caffe_pysgd.proof.explain.arithmetic import Line
    from caffe_pysgd.proof.explain.explanation import Explanation


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--param", metavar="P", required=True, shell_complete=recorded_parameters,
              help="The parameter, such as conv1/0.")  # fmt: skip
@click.option("--index", metavar="I,J,...", required=True, help="Which of its values.")
@click.option("--iteration", metavar="N", type=ITERATION, required=True,
              shell_complete=recorded_iterations, help="Whose update, from 0 on.")  # fmt: skip
@json_option("Also as JSON.")
@allow_user_code_option
@no_user_code_option
def explain(
    file: Path,
    param: str,
    index: str,
    iteration: int,
    json_path: Optional[Path],
    allow_user_code: bool,
) -> None:
    """Show how one weight got its new value, from its gradient on.

    FILE is an audit, or the run directory that holds one. Every line is a formula, with names and
    with numbers, and its value as a decimal and as a hexadecimal float. What no probe recorded is
    had by training again up to that iteration. Exit code 1 if a formula does not give what was
    recorded.
    """
    from caffe_pysgd.audit.opening import open_audit
    from caffe_pysgd.files import write_json
    from caffe_pysgd.proof.explain.explanation import explain as explain_element
    from caffe_pysgd.proof.explain.lookup import find_element

    quiet_caffe()
    with open_audit(file) as store, showing("training again") as progress:
        found = find_element(store, param, _numbers(index), iteration, progress, allow_user_code)
        explanation = explain_element(found.element, found.trained_again)
    _show(explanation)
    if json_path:
        write_json(json_path, explanation.as_json())
    if explanation.differing:
        sys.exit(1)


def _numbers(index: str) -> List[int]:
    try:
        return [int(part) for part in index.split(",")]
    except ValueError:
        raise SettingError("--index", index, "numbers, such as 3,0,2,1") from None


def _show(explanation: Explanation) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False)
    rows = [_row(line, explanation.source) for line in explanation.lines]
    widths = [max(len(row[column]) for row in rows) for column in range(6)]
    # A pipe has no width.
    width = console.width if console.is_terminal else sum(widths) + 2 * len(widths)
    told = [Text(explanation.title, "bold"), Text()]
    for line, row in zip(explanation.lines, rows):
        told += _told(line, row, widths, width)
    told += [Text(), *map(Text, explanation.notes)]
    told.append(Text(explanation.verdict, "red" if explanation.differing else "green"))
    for text in told:
        text.rstrip()
        shown = text if _prints(console) else Text(text.plain.replace("·", "*"))
        console.print(shown, soft_wrap=not console.is_terminal)


def _row(line: Line, source: str) -> List[str]:
    from caffe_pysgd.proof.explain.arithmetic import decimal, hexadecimal

    formula = f"= {line.formula}" if line.formula else ""
    numbers = f"= {line.numbers}" if line.numbers else line.note
    value, mark = f"= {decimal(line.value)}", source if line.recorded else ""
    return [line.name, formula, numbers, value, hexadecimal(line.value), mark]


_STYLES = ("", "", "cyan", "bold", "dim", "green")


def _told(line: Line, row: List[str], widths: List[int], width: int) -> List[Text]:
    """Return a line of the board: in columns if it fits, else part below part."""
    from rich.text import Text

    styles = [_style(line), *_STYLES[1:]]
    if sum(widths) + 2 * (len(widths) - 1) <= width:
        columns = [Text(cell.ljust(room), s) for cell, room, s in zip(row, widths, styles)]
        return [Text("  ").join(columns)]
    name, formula, numbers, *value = map(Text, row, styles)
    texts = [Text(" " * widths[0])]
    for part in (formula, numbers, Text("  ").join(cell for cell in value if cell)):
        if part and texts[-1].plain.strip() and len(texts[-1]) + 2 + len(part) > width:
            texts.append(Text(" " * widths[0]))
        if part:
            texts[-1].append("  ").append_text(part)
    texts[0] = name.append_text(texts[0][len(name) :])
    return texts


def _style(line: Line) -> str:
    return "red" if line.differs else ""


def _prints(console: Console) -> bool:
    try:
        "·".encode(console.encoding)
    except (UnicodeEncodeError, LookupError):
        return False
    return True
