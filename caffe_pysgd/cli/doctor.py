"""``caffe-pysgd doctor``: can training run here?"""

from __future__ import annotations

import sys

import click


@click.command()
def doctor() -> None:
    """Say which Caffe, kernels, BLAS and versions there are, and whether training can run.

    Tries, inside the real `caffe` binary, what the Python update needs there. A Caffe without that
    program, or without the Python layer, has fewer hosts. Exit code 0 if training can run, else 2,
    with what is wrong and how to fix it.
    """
    from caffe_pysgd.doctor.checks import diagnose_installation

    findings = []
    for finding in diagnose_installation():
        findings.append(finding)
        mark = "FAIL" if finding.fix else "no" if finding.lacking else "ok"
        click.echo(f"{mark:<5}{finding.subject:<22}{finding.found}")
    problems = [finding for finding in findings if finding.fix]
    for problem in problems:
        click.echo(f"caffe-pysgd: {problem.subject}: {problem.fix}", err=True)
    if not problems:
        click.echo("training can run")
    sys.exit(2 if problems else 0)
