"""scripts/get_caffe.py as its users meet it: a program with an exit code and lines on stderr."""

from __future__ import annotations

import importlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator

import pytest
from helpers.places import PROJECT

SCRIPTS = PROJECT / "scripts"
GET_CAFFE = SCRIPTS / "get_caffe.py"
MIRROR_VARIABLE = "CAFFE_PYSGD_MIRROR"
STAMP = "caffe-pysgd-packages.txt"


def get_caffe(prefix: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs the script to its end."""
    return subprocess.run(
        [sys.executable, str(GET_CAFFE), "--prefix", str(prefix)],
        env=dict(os.environ, **environment),
        capture_output=True,
        text=True,
    )


def start(prefix: Path, **environment: str) -> subprocess.Popen[str]:
    """Starts the script with its stderr in a pipe."""
    return subprocess.Popen(
        [sys.executable, str(GET_CAFFE), "--prefix", str(prefix)],
        env=dict(os.environ, **environment),
        stderr=subprocess.PIPE,
        text=True,
    )


def assert_one_line_error(run: subprocess.CompletedProcess[str], pattern: str) -> None:
    """Exit code 2, and after the announced steps a single line that says what is wrong."""
    lines = [line for line in run.stderr.splitlines() if not re.match(r"\[\d/\d\] ", line)]
    assert run.returncode == 2, run.stderr
    assert len(lines) == 1, run.stderr
    assert re.search(pattern, lines[0]), run.stderr
    assert run.stdout == ""


@contextmanager
def silent_mirror() -> Iterator[str]:
    """A mirror that takes connections and never answers."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/"


@pytest.fixture
def empty_mirror(tmp_path: Path) -> Path:
    """A directory that could be a mirror and has nothing in it."""
    directory = tmp_path / "mirror"
    directory.mkdir()
    return directory


def test_without_apt(tmp_path: Path) -> None:
    run = get_caffe(tmp_path / "caffe", PATH=str(tmp_path))

    assert_one_line_error(run, r"apt-get is not on PATH: .* CAFFE_PYTHON")
    assert list(tmp_path.iterdir()) == [tmp_path / "caffe.lock"]


def test_mirror_without_bullseye(tmp_path: Path, empty_mirror: Path) -> None:
    mirror = f"file://{empty_mirror}"
    run = get_caffe(tmp_path / "caffe", **{MIRROR_VARIABLE: mirror})

    assert_one_line_error(run, rf"the mirror {mirror} has no bullseye: .* {MIRROR_VARIABLE}")
    assert not (tmp_path / "caffe").exists()


def test_mirror_out_of_reach(tmp_path: Path) -> None:
    with silent_mirror() as mirror:
        pass  # the port is free again, so connections are refused
    run = get_caffe(tmp_path / "caffe", **{MIRROR_VARIABLE: mirror})

    assert_one_line_error(run, rf"cannot reach the mirror {mirror} .* {MIRROR_VARIABLE}")
    assert not (tmp_path / "caffe").exists()


def test_mirror_that_is_no_address(tmp_path: Path) -> None:
    run = get_caffe(tmp_path / "caffe", **{MIRROR_VARIABLE: "nonsense"})

    assert_one_line_error(run, rf"nonsense: Malformed entry .* {MIRROR_VARIABLE}")


def test_mirror_with_an_unsigned_bullseye(tmp_path: Path, empty_mirror: Path) -> None:
    release = empty_mirror / "dists" / "bullseye" / "Release"
    release.parent.mkdir(parents=True)
    release.write_text("Codename: bullseye\nSuite: oldoldstable\nComponents: main\n")
    mirror = f"file://{empty_mirror}"
    run = get_caffe(tmp_path / "caffe", **{MIRROR_VARIABLE: mirror})

    assert_one_line_error(run, rf"the signature of bullseye at {mirror} does not hold .*not signed")


def test_prefix_without_a_stamp_is_neither_taken_for_whole_nor_touched(tmp_path: Path) -> None:
    caffe = tmp_path / "caffe" / "usr" / "bin" / "caffe"
    caffe.parent.mkdir(parents=True)
    caffe.write_text("half")
    run = get_caffe(tmp_path / "caffe")

    assert_one_line_error(run, rf"{tmp_path}/caffe is there but is no finished Caffe prefix")
    assert caffe.read_text() == "half"


def test_prefix_of_an_older_recipe_is_not_taken_for_whole(
    tmp_path: Path, empty_mirror: Path
) -> None:
    (tmp_path / "caffe").mkdir()
    (tmp_path / "caffe" / STAMP).write_text("# bullseye: caffe\ncaffe_1.0.0_amd64.deb\n")
    run = get_caffe(tmp_path / "caffe", **{MIRROR_VARIABLE: f"file://{empty_mirror}"})

    assert_one_line_error(run, "has no bullseye")


def test_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Asks for more than this disk has."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    script = importlib.import_module("get_caffe")
    steps = importlib.import_module("steps")
    monkeypatch.setattr(script, "DISK_SPACE", shutil.disk_usage(tmp_path).total + 10**12)
    monkeypatch.setattr(sys, "argv", ["get_caffe.py", "--prefix", str(tmp_path / "caffe")])
    with pytest.raises(SystemExit) as ending:
        steps.run_as_program(script.main)

    assert ending.value.code == 2
    assert re.fullmatch(
        rf"get_caffe.py: only \d+ MB free in {tmp_path}/caffe.work, \d+ MB are needed: .*\n",
        capsys.readouterr().err,
    )


def test_interrupted_while_waiting_for_the_mirror(tmp_path: Path) -> None:
    with silent_mirror() as mirror:
        run = start(tmp_path / "caffe", **{MIRROR_VARIABLE: mirror})
        assert run.stderr is not None
        assert run.stderr.readline().startswith("[1/6] ")
        time.sleep(0.3)
        run.send_signal(signal.SIGINT)
        _, stderr = run.communicate(timeout=10)

    assert run.returncode == 130
    assert stderr == "get_caffe.py: interrupted; run it again to go on\n"
    assert not (tmp_path / "caffe").exists()


def test_second_run_at_once_waits_for_the_first(tmp_path: Path) -> None:
    with silent_mirror() as mirror:
        first = start(tmp_path / "caffe", **{MIRROR_VARIABLE: mirror})
        assert first.stderr is not None
        assert first.stderr.readline().startswith("[1/6] ")
        second = start(tmp_path / "caffe", **{MIRROR_VARIABLE: mirror})
        assert second.stderr is not None
        assert second.stderr.readline().startswith("waiting for another run to end")
        first.send_signal(signal.SIGINT)
        first.communicate(timeout=10)
        assert second.stderr.readline().startswith("[1/6] ")
        second.send_signal(signal.SIGINT)
        second.communicate(timeout=10)


@pytest.fixture(scope="module")
def killed_and_resumed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A prefix whose first run was killed while it unpacked, and whose second run ended well."""
    place = tmp_path_factory.mktemp("prefix")
    first = start(place / "caffe")
    unpacked = (place / "caffe.work").glob
    while not any(unpacked("unpacked-*/usr/bin/*")):
        assert first.poll() is None, first.communicate()[1]
        time.sleep(0.05)
    first.kill()
    first.communicate()
    assert not (place / "caffe").exists()
    assert any(unpacked("unpacked-*/usr"))

    second = get_caffe(place / "caffe")
    assert second.returncode == 0, second.stderr
    yield place / "caffe"
    shutil.rmtree(place)


@pytest.mark.slow
def test_resumed_prefix_is_whole(killed_and_resumed: Path) -> None:
    assert not killed_and_resumed.with_name("caffe.work").exists()
    assert_works(killed_and_resumed)


@pytest.mark.slow
def test_second_run_does_nothing(killed_and_resumed: Path, tmp_path: Path) -> None:
    run = get_caffe(killed_and_resumed, PATH=str(tmp_path))

    assert (run.returncode, run.stderr) == (0, "")


@pytest.mark.slow
def test_moved_prefix_works(killed_and_resumed: Path) -> None:
    elsewhere = killed_and_resumed.with_name("else where")
    killed_and_resumed.rename(elsewhere)
    try:
        assert_works(elsewhere)
    finally:
        elsewhere.rename(killed_and_resumed)


@pytest.mark.slow
def test_user_without_rights_can_install() -> None:
    """Root becomes nobody for this; anybody else is without rights already."""
    become = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    python = shutil.which("python3", path="/usr/local/bin:/usr/bin:/bin") or sys.executable
    # Not tmp_path, whose parents only its owner may enter.
    with tempfile.TemporaryDirectory() as place:
        shutil.copytree(SCRIPTS, Path(place, "scripts"))
        if os.getuid() == 0:
            os.chown(place, 65534, 65534)
        else:
            become = []
        subprocess.run(
            [*become, python, f"{place}/scripts/get_caffe.py", "--prefix", f"{place}/caffe"],
            check=True,
        )
        assert_works(Path(place, "caffe"), become)


def assert_works(prefix: Path, become: list[str] | None = None) -> None:
    """caffe starts, its Python imports it, and both with libraries of this prefix."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}

    def output(*command: str) -> str:
        return subprocess.run(
            [*(become or []), *command],
            env=environment,
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        ).stdout.strip()

    assert output(f"{prefix}/usr/bin/caffe", "--version") == "caffe version 1.0.0"
    mappings = "import caffe; print(open('/proc/self/maps').read())"
    loaded = output(f"{prefix}/usr/bin/python3.9", "-c", mappings)
    assert re.search(rf"{re.escape(str(prefix))}/usr/lib/.*/libcaffe\.so", loaded)
