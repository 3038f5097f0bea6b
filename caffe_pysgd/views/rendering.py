"""A page as one file that needs no network: a template, and what is put into it."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from caffe_pysgd.optional import needed
from caffe_pysgd.version import __version__

_REPORT = Path(__file__).parent / "report"


def render(template: Path, needs: str, **values: Any) -> str:
    """Return the HTML of a template, which also gets ``version``, ``written`` and ``asset``.

    Args:
        template: the file.
        needs: who needs Jinja2, for the message.
        values: what the template names.

    Raises:
        UserError: Jinja2 is not installed.
    """
    jinja2 = needed("jinja2", f"{needs} needs Jinja2", "report")
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    html: str = environment.from_string(template.read_text(encoding="utf-8")).render(
        version=__version__,
        written=datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        asset=read_asset,
        **values,
    )
    return html


def read_asset(name: str) -> str:
    """Return a file that pages are made of, such as ``assets/charts.js``."""
    return (_REPORT / name).read_text(encoding="utf-8")
