"""How objects show themselves: in one line, and as a table in a notebook."""

from __future__ import annotations

from html import escape
from typing import Any, Iterable, Sequence


def html_table(title: str, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Return a table that is unfolded by a click on its title.

    Args:
        title: one line.
        header: the names of the columns.
        rows: their values; what is no text is shown as ``str`` has it.
    """
    head = "".join(f"<th>{escape(name)}</th>" for name in header)
    body = "".join(
        f"<tr>{''.join(f'<td>{escape(str(cell))}</td>' for cell in row)}</tr>" for row in rows
    )
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f"<details><summary>{escape(title)}</summary>{table}</details>"


def counted(number: int, noun: str) -> str:
    """Return ``8 parameters``, or ``1 parameter``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
