#!/usr/bin/env python3
"""Gets a stock Caffe from Debian 11, the last Debian that has it, into a directory of its own.

The machine's own apt downloads the packages and checks their signatures, but with a private state,
so nothing is installed on the system and no root is needed. The packages are unpacked side by side
into a prefix whose programs find their libraries relative to themselves, so it can be moved.

All the work is done in `PREFIX.work`; the finished prefix is renamed into place at the very end.
Whatever stands at PREFIX is therefore whole, and an interrupted run can simply be repeated.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import NamedTuple

from steps import (
    Failure,
    Steps,
    clean_environment,
    last_line,
    lines_of,
    locked,
    run,
    run_as_program,
)

PROJECT = Path(__file__).resolve().parent.parent
DEFAULT_PREFIX = PROJECT / ".caffe"

RELEASE = "bullseye"
MIRROR_VARIABLE = "CAFFE_PYSGD_MIRROR"
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
PACKAGES = (
    "caffe",
    "python3-caffe",
    "libopenblas0-pthread",
    "python3-lmdb",
    "python3.9-venv",
    "python3-distutils",
    "python-pip-whl",
    "patchelf",
)
NOT_UNPACKED = (
    "libc6",  # the host's loader aborts when it meets another release's C library
    "python3-matplotlib",  # looks for its data in /usr/share, and its mpl_toolkits shadows PyPI's
)
TOOLS = (
    "convert_mnist_data",
    "convert_imageset",
    "compute_image_mean",
    "extract_features",
    "upgrade_net_proto_text",
    "upgrade_net_proto_binary",
    "upgrade_solver_proto_text",
    "caffe-gtest",
)
PYTHON = "usr/bin/python3.9"
CAFFE = "usr/bin/caffe"

DISK_SPACE = 1000 * 10**6  # 170 MB of packages, 50 MB of package index, 630 MB unpacked
OLDEST_GLIBC = (2, 31)  # what the packages are linked to
STAMP = "caffe-pysgd-packages.txt"

# The host's settings for reaching a mirror, the only ones that a private apt should share.
HOST_SETTINGS = ("Acquire::http", "Acquire::Retries", "Acquire::Check-", "Acquire::ForceIPv")

# What apt says, the first match wins; the network first, since apt goes on to other complaints.
APT_ERRORS = (
    (
        r"resolving|resolve|connect|unreachable|timed out|connection failed",
        "cannot reach the mirror {mirror} ({error}): check the network and the proxy, "
        "or name another mirror in {variable}",
    ),
    (
        r"No space left|enough free space",
        "no disk space left in {work}: free about 1 GB",
    ),
    (
        r"not signed|NO_PUBKEY|EXPKEYSIG|GPG error|couldn't be verified|invalid signature",
        "the signature of {release} at {mirror} does not hold ({error}): update the package "
        "debian-archive-keyring, or name another mirror in {variable}",
    ),
    (
        r"does not have a Release file|no longer has a Release file|404|File not found",
        "the mirror {mirror} has no {release}: name one that does in {variable}, "
        "e.g. an archive of old Debian releases",
    ),
)


class Package(NamedTuple):
    """A package as apt would store it."""

    file: str
    size: int

    @property
    def name(self) -> str:
        return self.file.split("_")[0]


def install(prefix: Path, indent: str = "") -> None:
    """Makes `prefix` hold a whole Caffe; returns at once if it does already."""
    if is_whole(prefix):
        return
    with locked(prefix.with_name(prefix.name + ".lock")):
        if not is_whole(prefix):
            fetch(prefix, prefix.with_name(prefix.name + ".work"), Steps(6, indent))


def is_whole(prefix: Path) -> bool:
    """Whether a run of this script, as it is today, finished this prefix."""
    stamp = prefix / STAMP
    return stamp.is_file() and stamp.read_text().startswith(stamp_heading())


def stamp_heading() -> str:
    return f"# {RELEASE}: {' '.join(PACKAGES)}\n"


def fetch(prefix: Path, work: Path, steps: Steps) -> None:
    """Does the six steps in `work` and renames the outcome to `prefix`."""
    start = time.monotonic()
    check_machine()
    check_place(prefix)
    discard_half_unpacked(work)
    check_disk_space(work)
    apt = Apt(work, os.environ.get(MIRROR_VARIABLE) or host_mirror())

    steps.begin(f"read the package index of {RELEASE}, 8 MB")
    apt.update(steps)
    packages = apt.packages()
    missing = [package for package in packages if not (apt.archives / package.file).is_file()]
    here = f" ({len(packages) - len(missing)} are here already)" if packages != missing else ""
    steps.begin(f"download {len(missing)} packages, {megabytes(missing)} MB{here}")
    apt.download(steps)

    unpacked = Path(tempfile.mkdtemp(prefix="unpacked-", dir=work))
    wanted = [package for package in packages if package.name not in NOT_UNPACKED]
    steps.begin(f"unpack {len(wanted)} packages, {megabytes(wanted)} MB")
    unpack(wanted, apt.archives, unpacked, steps)
    steps.begin(f"let {len(TOOLS) + 2} programs find their libraries wherever the prefix is")
    set_library_paths(unpacked)
    steps.begin("try them: caffe starts, Python imports it")
    smoke_test(unpacked)
    steps.begin("compile what Python imports, as dpkg would have it")
    compile_modules(unpacked, prefix)

    names = "\n".join(package.file for package in wanted)
    (unpacked / STAMP).write_text(f"{stamp_heading()}{names}\n")
    put_in_place(unpacked, prefix, work)
    shutil.rmtree(work)
    steps.say(f"Caffe is in {prefix}, {time.monotonic() - start:.0f} s")


def check_machine() -> None:
    """Stops where the recipe cannot work: no apt, no Debian keys, too old a C library."""
    for program in ("apt-get", "apt-config", "dpkg-deb"):
        if not shutil.which(program):
            raise Failure(
                f"{program} is not on PATH: Caffe comes from Debian's packages, so this needs "
                "Debian or a relative of it; or install Caffe yourself and name its Python in "
                "CAFFE_PYTHON"
            )
    if not os.access(KEYRING, os.R_OK):
        raise Failure(
            f"{KEYRING} is missing, so the packages' signatures cannot be checked: "
            "install the package debian-archive-keyring"
        )
    glibc = os.confstr("CS_GNU_LIBC_VERSION") or "glibc 0"
    if tuple(map(int, glibc.split()[1].split("."))) < OLDEST_GLIBC:
        raise Failure(
            f"this system has {glibc}, Caffe's packages need {OLDEST_GLIBC[0]}.{OLDEST_GLIBC[1]}: "
            "use a newer system"
        )


def check_place(prefix: Path) -> None:
    """Stops before somebody else's directory is written to."""
    is_free = not prefix.exists() or (prefix.is_dir() and not any(prefix.iterdir()))
    if not is_free and not (prefix / STAMP).is_file():
        raise Failure(
            f"{prefix} is there but is no finished Caffe prefix (it has no {STAMP}): "
            "remove it, or name another place with --prefix"
        )


def discard_half_unpacked(work: Path) -> None:
    """Throws away what an interrupted run had unpacked; its downloads are kept."""
    work.mkdir(parents=True, exist_ok=True)
    for leftover in work.glob("unpacked-*"):
        shutil.rmtree(leftover)


def check_disk_space(work: Path) -> None:
    """Stops before the disk is full, counting what an interrupted run has downloaded already."""
    present = sum(file.stat().st_size for file in work.rglob("*") if file.is_file())
    free = shutil.disk_usage(work).free
    missing = DISK_SPACE - present
    if free < missing:
        raise Failure(
            f"only {free / 1e6:.0f} MB free in {work}, {missing / 1e6:.0f} MB are needed: "
            "free some, or name another disk with --prefix"
        )


def host_mirror() -> str:
    """The mirror from which this machine gets its own packages."""
    fields = "$(REPO_URI) $(RELEASE) $(COMPONENT)"
    listing = subprocess.run(
        # Without the release information the list is whole even before the first apt-get update.
        ["apt-get", "indextargets", "--no-release-info", "--format", fields],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ).stdout
    releases = (host_codename(), "stable", "oldstable", "testing", "unstable", "sid")
    mirrors: list[str] = re.findall(rf"^(\S+) (?:{'|'.join(releases)}) main$", listing, re.M)
    if not mirrors:
        raise Failure(
            "apt's sources name no mirror for this system's own release: "
            f"name a Debian mirror in {MIRROR_VARIABLE}"
        )
    # Other people's repositories may use Debian's release names; Debian's own is called so.
    return min(mirrors, key=lambda uri: not uri.rstrip("/").endswith("/debian"))


def host_codename() -> str:
    """The name of the host's release, e.g. bookworm."""
    match = re.search(r"^VERSION_CODENAME=(\w+)", Path("/etc/os-release").read_text(), re.M)
    return match.group(1) if match else ""


class Apt:
    """The machine's apt-get with sources, index and downloads of its own in a directory.

    It gets these packages of that release, and sources of another.
    """

    def __init__(
        self,
        work: Path,
        mirror: str,
        packages: tuple[str, ...] = PACKAGES,
        release: str = RELEASE,
        source_release: str = "",
    ) -> None:
        self.work = work
        self.mirror = mirror
        self.wanted = packages
        self.release = release
        self.source_release = source_release
        self.archives = work / "cache" / "archives"
        self.configuration = work / "apt.conf"
        self._write_configuration()

    def _write_configuration(self) -> None:
        for directory in ("state/lists/partial", "cache/archives/partial", "nothing/partial"):
            (self.work / directory).mkdir(parents=True, exist_ok=True)
        (self.work / "status").touch()
        # With the scheme `file` apt would use the packages where they are, not download them.
        uri = re.sub("^file:", "copy:", self.mirror)
        sources = self.work / "sources.list"
        lines = [f"deb [signed-by={KEYRING}] {uri} {self.release} main\n"]
        if self.source_release:
            lines.append(f"deb-src [signed-by={KEYRING}] {uri} {self.source_release} main\n")
        sources.write_text("".join(lines))
        settings = {
            "Dir::State": f"{self.work}/state",
            "Dir::State::status": f"{self.work}/status",
            "Dir::Cache": f"{self.work}/cache",
            "Dir::Etc::sourcelist": str(sources),
            "Dir::Etc::sourceparts": "/dev/null",
            "Dir::Etc::preferences": "/dev/null",
            "Dir::Etc::preferencesparts": "/dev/null",
            "Dir::Etc::main": "/dev/null",
            "Dir::Etc::parts": "/dev/null",
            "APT::Install-Recommends": "false",
            "APT::Update::Error-Mode": "any",
            "Acquire::AllowInsecureRepositories": "false",
            "Acquire::Languages": "none",
        }
        own = "".join(f'{name} "{value}";\n' for name, value in settings.items())
        self.configuration.write_text(host_network_settings() + own)

    def update(self, steps: Steps) -> None:
        """Reads the package index; apt checks its signature."""
        self._run(["update"], steps)

    def packages(self) -> list[Package]:
        """All packages to get, as if none had been downloaded yet."""
        listing = self._run(
            ["install", "--print-uris", f"-oDir::Cache::Archives={self.work}/nothing", *self.wanted]
        )
        matches = re.findall(r"^'\S+' (\S+\.deb) (\d+)", listing, re.M)
        return [Package(file, int(size)) for file, size in matches]

    def download(self, steps: Steps) -> None:
        """Downloads the packages that are not there yet; apt checks them against the index."""
        self._run(["install", "--download-only", *self.wanted], steps)

    def source(self, name: str, folder: Path) -> Path:
        """Unpacks a source package, with Debian's patches, into a folder; returns its directory."""
        self._run(["source", name], folder=folder)
        return next(place for place in folder.iterdir() if place.is_dir())

    def _run(
        self, arguments: list[str], steps: Steps | None = None, folder: Path | None = None
    ) -> str:
        """Runs apt-get, draws the progress that it reports and returns the rest of its output."""
        output: list[str] = []
        with tempfile.TemporaryFile("w+") as errors:
            process = subprocess.Popen(
                ["apt-get", "-y", "-qq", "-oAPT::Status-Fd=1", *arguments],
                env=clean_environment(APT_CONFIG=str(self.configuration), LC_ALL="C"),
                close_fds=False,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                cwd=folder,
                text=True,
            )
            for line in lines_of(process):
                status = re.match(r"dlstatus:\d+:([\d.]+):", line)
                if status and steps:
                    steps.progress(float(status.group(1)) / 100)
                elif not status:
                    output.append(line)
            if process.returncode != 0:
                errors.seek(0)
                raise self._failure(errors.read())
        return "".join(output)

    def _failure(self, complaint: str) -> Failure:
        """Says in the user's terms what apt complains of."""
        errors = [
            *re.findall(r"^E: (.*)", complaint, re.M),
            *re.findall(r"^W: (.*)", complaint, re.M),
        ] or [last_line(complaint)]
        for pattern, message in APT_ERRORS:
            for error in errors:
                if re.search(pattern, error, re.I):
                    return Failure(
                        message.format(
                            mirror=self.mirror,
                            error=error,
                            release=self.release,
                            variable=MIRROR_VARIABLE,
                            work=self.work,
                        )
                    )
        return Failure(
            f"apt-get with the mirror {self.mirror}: {errors[0]}: run it again, "
            f"or name another mirror in {MIRROR_VARIABLE}"
        )


def host_network_settings() -> str:
    """The host's own proxies, certificates and retries, in the form of apt.conf."""
    dump = subprocess.run(
        ["apt-config", "dump"], stdout=subprocess.PIPE, text=True, check=True
    ).stdout
    return "".join(
        line for line in dump.splitlines(keepends=True) if line.startswith(HOST_SETTINGS)
    )


def megabytes(packages: list[Package]) -> str:
    return f"{sum(package.size for package in packages) / 1e6:.0f}"


def unpack(packages: list[Package], archives: Path, target: Path, steps: Steps) -> None:
    """Unpacks the packages over each other, several at a time."""
    total = sum(package.size for package in packages)
    done = 0
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        pending = {
            pool.submit(unpack_one, archives / package.file, target): package
            for package in packages
        }
        try:
            for future in as_completed(pending):
                future.result()
                done += pending[future].size
                steps.progress(done / total)
        finally:
            for future in pending:
                future.cancel()


def unpack_one(package: Path, target: Path) -> None:
    run(["dpkg-deb", "-x", str(package), str(target)], f"cannot unpack {package}")


def set_library_paths(prefix: Path) -> None:
    """Writes into each program where its libraries are, relative to the program.

    A DT_RPATH (not RUNPATH) also serves the libraries that the libraries need, and wins over the
    caller's LD_LIBRARY_PATH.
    """
    libraries = next(prefix.glob("usr/lib/*/libcaffe.so.*")).parent
    machine = libraries.name
    places = (
        f"lib/{machine}/openblas-pthread",
        f"lib/{machine}",
        f"../lib/{machine}",
        f"lib/{machine}/blas",
        f"lib/{machine}/lapack",
        "lib",
    )
    path = ":".join(f"$ORIGIN/../{place}" for place in places)
    # patchelf is one of the packages and cannot find its own libraries yet.
    environment = clean_environment(LD_LIBRARY_PATH=f"{libraries}:{prefix}/lib/{machine}")
    programs = [prefix / PYTHON, prefix / CAFFE, *(prefix / "usr/bin" / tool for tool in TOOLS)]
    for program in programs:
        run(
            [str(prefix / "usr/bin/patchelf"), "--force-rpath", "--set-rpath", path, str(program)],
            f"cannot set the library path of {program}",
            environment,
        )


def smoke_test(prefix: Path) -> None:
    """Starts what was unpacked, so that a prefix in place is one that works here."""
    environment = clean_environment(GLOG_logtostderr="1")
    failing = "the unpacked Caffe does not work on this system"
    run([str(prefix / CAFFE), "--version"], failing, environment)
    check = "import caffe; assert 'Python' in caffe.layer_type_list(), 'it has no Python layer'"
    run([str(prefix / PYTHON), "-c", check], failing, environment)


def compile_modules(unpacked: Path, prefix: Path) -> None:
    """Keeps the bytecode of all modules.

    Python would write it at the first import; where it may not, each import compiles NumPy again.
    """
    modules = [str(folder) for folder in unpacked.glob("usr/lib/python3*")]
    moved = ["-s", str(unpacked), "-p", str(prefix)]
    # It fails over a few test files in another Python, which nobody imports.
    subprocess.run(
        [str(unpacked / PYTHON), "-m", "compileall", "-q", "-j", "0", *moved, *modules],
        env=clean_environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=False,
    )


def put_in_place(unpacked: Path, prefix: Path, work: Path) -> None:
    """Renames the finished prefix into place, and an outdated one of ours out of it."""
    if (prefix / STAMP).is_file():
        prefix.rename(Path(tempfile.mkdtemp(prefix="outdated-", dir=work)))
    unpacked.rename(prefix)


def main() -> None:
    parser = argparse.ArgumentParser(description="Get a stock Caffe from Debian's packages.")
    parser.add_argument(
        "--prefix",
        type=Path,
        default=DEFAULT_PREFIX,
        help="directory to put it in (default: .caffe in the project)",
    )
    install(Path(os.path.abspath(parser.parse_args().prefix)))


if __name__ == "__main__":
    run_as_program(main)
