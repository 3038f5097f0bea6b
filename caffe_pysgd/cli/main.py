"""``caffe-pysgd``: the commands together, and how errors reach a person."""

from __future__ import annotations

import os
import sys
from typing import NoReturn

import click

from caffe_pysgd.cli.lazy import LazyGroup
from caffe_pysgd.cli.options import VERBOSITY
from caffe_pysgd.errors import UserError
from caffe_pysgd.version import __version__

_COMMANDS = {
    "doctor": "Check whether training can run here.",
    "inject": "Write the prototxt files with Python's update, run nothing.",
    "train": "Train with stock `caffe train`, the update in Python.",
    "solve": "Train with the whole loop in Python.",
    "sweep": "Train many runs from one YAML, and rank them.",
    "verify": "Compare Python's update with the native solver's, bit by bit.",
    "schedule": "Show the learning rates of a run before it starts.",
    "convert": "Convert snapshots between in-net and stock, or strip a model.",
    "audit": "Check, compare and replay what runs recorded.",
    "explain": "Show how one weight got its new value.",
    "diagnose": "Find out why a hand-written update does not match.",
    "report": "Show recorded runs as one HTML page.",
    "watch": "Show a run in the terminal while it trains.",
    "export": "Export a recorded run: CSV, Parquet, TensorBoard.",
}


@click.group(
    cls=LazyGroup,
    package="caffe_pysgd.cli",
    summaries=_COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    invoke_without_command=True,
)
@click.version_option(__version__, prog_name="caffe-pysgd")
@click.pass_context
def commands(context: click.Context) -> None:
    """Python owns Caffe's parameter update, inside an unmodified `caffe train`.

    X is a stock solver.prototxt, or a YAML that names one and says what to change. Begin with

    \b
        caffe-pysgd doctor                  can training run here?
        caffe-pysgd verify solver.prototxt  are the bits those of the native solver?
        caffe-pysgd train solver.prototxt   train
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


commands.params.extend(VERBOSITY)


def main() -> NoReturn:
    """Run a command; a person's mistake ends in one line on stderr and exit code 2."""
    # pydantic would look for plugins in the metadata of every package that is installed.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    try:
        sys.exit(commands.main(standalone_mode=False) or 0)
    except click.NoSuchOption as error:
        training = error.ctx is not None and error.ctx.info_name == "train"
        hint = "; a flag of caffe's own goes behind a '--'" if training else ""
        _fail(error.format_message() + hint)
    except click.ClickException as error:
        _fail(error.format_message())
    except UserError as error:
        _fail(str(error))
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    except OSError as error:
        _fail(f"{error.filename or 'the system says'}: {error.strerror or error}")
    except Exception as error:
        if os.environ.get("CAFFE_PYSGD_TRACEBACK"):
            raise
        _fail(
            f"{type(error).__name__}: {error}; this is a fault of caffe-pysgd: run it again with "
            "--verbose and report what it says",
            _OWN_FAULT,
        )


# EX_SOFTWARE of sysexits.h: 1 means "differs" for verify, compare and check.
_OWN_FAULT = 70


def _fail(message: str, code: int = 2) -> NoReturn:
    line = " ".join(message.splitlines())
    # A name in a stranger's file must not give orders to the terminal.
    shown = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in line)
    click.echo(f"caffe-pysgd: {shown}", err=True)
    sys.exit(code)
