"""What the set-up scripts share: numbered steps, a progress bar, one-line errors, a lock.

Everything here is for people: it goes to stderr, a bar only where there is a terminal.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
import sys
from pathlib import Path
from typing import Callable, Iterator, NoReturn

BAR_WIDTH = 30


class Failure(Exception):
    """What is wrong, where, and the mend, in one line for the user."""


class Steps:
    """Announces the numbered steps of a program and draws the progress of the present one."""

    def __init__(self, total: int, indent: str = "") -> None:
        self.total = total
        self.indent = indent
        self.number = 0
        self.is_terminal = sys.stderr.isatty()

    def begin(self, text: str) -> None:
        """Starts the next step, e.g. `[2/5] download 231 packages, 169 MB`."""
        self.number += 1
        self.say(f"[{self.number}/{self.total}] {text}")

    def say(self, text: str) -> None:
        """Prints a line in the place of the progress that is showing."""
        self.clear()
        print(f"{self.indent}{text}", file=sys.stderr, flush=True)

    def progress(self, fraction: float) -> None:
        """Draws a bar below the present step."""
        filled = round(fraction * BAR_WIDTH)
        bar = "#" * filled + "." * (BAR_WIDTH - filled)
        self.status(f"[{bar}] {fraction:4.0%}")

    def status(self, text: str) -> None:
        """Shows a passing line below the present step."""
        if self.is_terminal:
            print(f"\r{self.indent}      {text[:60]}\033[K", end="", file=sys.stderr, flush=True)

    def clear(self) -> None:
        """Wipes the passing line."""
        if self.is_terminal:
            print("\r\033[K", end="", file=sys.stderr, flush=True)


@contextlib.contextmanager
def locked(lock_file: Path) -> Iterator[None]:
    """Holds a lock that only one run can have; the system frees it however that one ends.

    The programs that a run starts with `close_fds=False` inherit the lock: if the run is killed,
    the next one waits until they too have stopped writing.
    """
    lock_file.parent.mkdir(parents=True, exist_ok=True)
    with lock_file.open("w") as handle:
        os.set_inheritable(handle.fileno(), True)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"waiting for another run to end (it holds {lock_file})", file=sys.stderr)
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def clean_environment(**changes: str) -> dict[str, str]:
    """The caller's environment without the variables that would steer another Python."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return dict(kept, **changes)


def last_line(text: str) -> str:
    """The last line with something on it: where a program says why it ended."""
    lines = text.strip().splitlines()
    return lines[-1].strip() if lines else "no message"


def run(command: list[str], failing: str, environment: dict[str, str] | None = None) -> None:
    """Runs a program quietly; if it fails, says so with the last line that it printed."""
    outcome = subprocess.run(
        command,
        env=environment or clean_environment(),
        close_fds=False,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    if "No space left on device" in outcome.stdout:
        raise Failure(f"{failing}: no disk space left, free about 1 GB")
    if outcome.returncode != 0:
        raise Failure(f"{failing}: {last_line(outcome.stdout)} (exit code {outcome.returncode})")


def lines_of(process: subprocess.Popen[str]) -> Iterator[str]:
    """The lines that a program prints, until it has ended; it does not outlive an interruption."""
    assert process.stdout is not None
    try:
        yield from process.stdout
        process.wait()
    finally:
        if process.poll() is None:
            process.terminate()


def run_as_program(main: Callable[[], None]) -> NoReturn:
    """Runs `main` and ends the process: 0, or one line on stderr and 2 (130 for Ctrl-C)."""
    program = Path(sys.argv[0]).name
    try:
        main()
    except Failure as failure:
        message, status = str(failure), 2
    except OSError as error:
        message, status = f"{error.strerror}: {error.filename}", 2
    except KeyboardInterrupt:
        message, status = "interrupted; run it again to go on", 130
    else:
        sys.exit(0)
    wipe = "\r\033[K" if sys.stderr.isatty() else ""
    print(f"{wipe}{program}: {message}", file=sys.stderr)
    sys.exit(status)
