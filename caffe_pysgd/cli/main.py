"""``caffe-pysgd``: the commands together, and how errors reach a person."""

from __future__ import annotations

import sys
from typing import NoReturn

import click

from caffe_pysgd import __version__
from caffe_pysgd.cli.doctor import doctor
from caffe_pysgd.cli.inject import inject
from caffe_pysgd.cli.train import train
from caffe_pysgd.cli.verify import verify
from caffe_pysgd.errors import UserError


@click.group(context_settings={"help_option_names": ["-h", "--help"]}, invoke_without_command=True)
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


for command in (doctor, inject, train, verify):
    commands.add_command(command)


def main() -> NoReturn:
    """Run a command; a person's mistake ends in one line on stderr and exit code 2."""
    try:
        sys.exit(commands.main(standalone_mode=False) or 0)
    except click.ClickException as error:
        _fail(error.format_message())
    except UserError as error:
        _fail(str(error))
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(0)


def _fail(line: str) -> NoReturn:
    click.echo(f"caffe-pysgd: {line}", err=True)
    sys.exit(2)
