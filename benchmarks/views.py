"""How long it takes to see a large audit: 202 parameter blobs x 6,000 iterations unless told.

Check, report and exports are run as a user runs them, one after the other. Of each: the seconds by
the clock and those of all processors (on a machine that others use, the second say more), and the
size of what is written.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Dict, List, Tuple

from large_audit import write

SELECTED = ("--every", "10", "--quantities", "gradient,update")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--iterations", type=int, default=6000)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    found: Dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="caffe-pysgd-") as name:
        folder = Path(name)
        audit, page, out = folder / "audit.sqlite", folder / "report.html", folder / "out"
        write(audit, arguments.iterations)
        print(f"the audit: {megabytes(audit)}", flush=True)
        commands: List[Tuple[str, List[str], Path]] = [
            ("audit check", ["audit", "check", str(audit)], audit),
            ("report", ["report", str(audit), "-o", str(page)], page),
            ("report --no-check", ["report", str(audit), "-o", str(page), "--no-check"], page),
        ]
        for format in ("csv", "tensorboard"):
            export = ["export", str(audit), "--format", format, "-o", str(out / format)]
            commands += [
                (f"export {format}", export, out / format),
                (f"export {format} {' '.join(SELECTED)}", [*export, *SELECTED], out / format),
            ]
        for title, command, written in commands:
            found[title] = measured(command)
            clock, processors = found[title]
            size = megabytes(written)
            print(f"{title}: {clock:.1f} s, {processors:.1f} s of processors, {size}", flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(found))


def measured(command: List[str]) -> Tuple[float, float]:
    """Return the seconds of a command by the clock, and of all its processes."""
    before, began = os.times(), time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "caffe_pysgd", *command], check=True, stdout=subprocess.DEVNULL
    )
    after = os.times()
    processors = after.children_user - before.children_user
    return time.perf_counter() - began, processors + after.children_system - before.children_system


def megabytes(path: Path) -> str:
    """Return the size of a file, or of the files in a folder."""
    files = [file for file in path.rglob("*") if file.is_file()] if path.is_dir() else [path]
    return f"{sum(file.stat().st_size for file in files) / 1e6:.1f} MB"


if __name__ == "__main__":
    main()
