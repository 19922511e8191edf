"""Build the cached roots that the real mail servers run in: ``python -m tests.servers.prepare``.

Nothing is installed on the user's system. Each Debian server gets a root of its own, for their packages exclude each
other: a layer over one base for each suite, mounted as an overlay in a private mount namespace. All is kept in
``$RTLS_SERVERS_CACHE``, or ``rtls_analysis/servers`` in the user's cache folder. Where it cannot be done the reason
is printed, recorded for the tests, which skip with it, and the exit status is 0.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

RECIPE: dict[str, Any] = {
    "version": 1,  # to be raised where the steps below change what they build
    "bases": {
        "bookworm": ["ca-certificates", "iproute2", "openssl"],
        "forky": ["ca-certificates", "iproute2", "openssl"],
    },
    "layers": {
        "postfix-3.7": ["bookworm", "postfix"],
        "exim": ["bookworm", "exim4-daemon-light"],
        "opensmtpd": ["forky", "opensmtpd"],
        "dns": ["bookworm", "nsd", "unbound", "ldnsutils"],
        "postfix-3.11": ["forky", "postfix"],
    },
    "npm": ["smtp-server@3.21.6"],
}
NPM_FOLDER = "smtp-server"

_TOOLS = ("apt-get", "dpkg-deb", "unshare", "nsenter", "setpriv", "mount", "chroot", "wget", "gpgv")
_KEYRINGS = ("debian-archive-keyring.gpg", "debian-archive-keyring.pgp")


class CannotPrepare(Exception):
    """The roots cannot be built on this machine: one line that says why."""


def cache_folder() -> Path:
    """Give the folder of all recipes: `RTLS_SERVERS_CACHE`, or one in the user's cache folder."""
    if named := os.environ.get("RTLS_SERVERS_CACHE"):
        return Path(named).resolve()
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base).resolve() / "rtls_analysis" / "servers"


def recipe_hash() -> str:
    """Name this recipe, so that a changed one is built anew."""
    return hashlib.sha256(json.dumps(RECIPE, sort_keys=True).encode()).hexdigest()[:12]


def ready_roots() -> tuple[Path, dict[str, str]]:
    """Give the folder of the finished roots, and for each server that it lacks the reason.

    Raises
    ------
    CannotPrepare
        There are none: with the reason that the last try recorded.
    """
    _check_user()
    roots = cache_folder() / recipe_hash()
    if (roots / "ready.json").exists():
        return roots, json.loads((roots / "ready.json").read_text())["missing"]
    with contextlib.suppress(OSError, ValueError, KeyError):
        status = json.loads((cache_folder() / "status.json").read_text())
        if status["recipe"] == recipe_hash():
            raise CannotPrepare(status["reason"])
    raise CannotPrepare("the real servers are not prepared: run python -m tests.servers.prepare")


def _check_user() -> None:
    if sys.platform != "linux":
        raise CannotPrepare(f"the real servers run on Linux, and this is {sys.platform}")
    if os.geteuid() != 0:
        raise CannotPrepare("the real servers need root (namespaces, port 25)")


def layer_folders(roots: Path, name: str) -> list[Path]:
    """Give the folders that make up the root of a server, the topmost first."""
    return [roots / name, roots / RECIPE["layers"][name][0]]


# -- building ------------------------------------------------------------------------------------------------


def _say(text: str) -> None:
    print(f"servers: {text}", flush=True)


def _run(argv: Sequence[str | Path], log: Path, **options: Any) -> None:
    """Run a step, its output into `log`; it ends with this process, whatever ends this process."""
    with log.open("ab") as output:
        begun = output.tell()
        done = subprocess.run(
            ["setpriv", "--pdeathsig", "KILL", *argv],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            check=False,
            **options,
        )
    if done.returncode:
        lines = log.read_bytes()[begun:].decode(errors="replace").strip().splitlines()
        said = next((line for line in lines if line.startswith("E: ")), lines[-1] if lines else "")
        raise CannotPrepare(f"{log.stem} failed with status {done.returncode}: {said[:200]}")


def _check_machine(folder: Path) -> None:
    """Find out what would stop us before anything is fetched."""
    if missing := [tool for tool in _TOOLS if shutil.which(tool) is None]:
        raise CannotPrepare(f"the real servers need Debian's tools, and {', '.join(missing)} is missing here")
    trial = folder / "trial"
    layers = [trial / name for name in ("lower", "upper", "work", "root")]
    for layer in layers:
        layer.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        ["unshare", "-n", "-m", "-p", "-f", "--mount-proc", *_overlay([layers[0]], *layers[1:], "true")],
        capture_output=True,
        text=True,
        check=False,
    )
    shutil.rmtree(trial, ignore_errors=True)
    if done.returncode:
        said = " ".join(done.stderr.split())
        raise CannotPrepare(f"no namespaces or overlay mounts for the real servers here: {said[:200]}")


def _overlay(lower: Sequence[Path], upper: Path, work: Path, root: Path, script: str) -> list[str]:
    """Give the argv of a shell that mounts an overlay at `root` and runs `script` there as ``$0``."""
    options = f"lowerdir={':'.join(map(str, lower))},upperdir={upper},workdir={work}"
    return ["sh", "-ec", f'mount -t overlay overlay -o "$1" "$0"; {script}', str(root), options]


class _Apt:
    """The machine's own apt, with lists and archives of its own, so that the system's are left as they are."""

    def __init__(self, folder: Path, log: Path) -> None:
        self.folder, self.log = folder, log
        for name in ("lists/partial", "archives/partial"):
            (folder / name).mkdir(parents=True)
        self.options = [
            f"-oDir::State::lists={folder / 'lists'}",
            f"-oDir::Cache={folder}",
            "-oAcquire::Languages=none",
            "-oAcquire::Check-Valid-Until=false",
            "-oAPT::Sandbox::User=root",
        ]

    def mirror(self) -> str:
        """Give the Debian mirror that this machine is configured for."""
        if named := os.environ.get("RTLS_SERVERS_MIRROR"):
            return named
        found = self._debian([])
        if not found:
            with contextlib.suppress(CannotPrepare):  # one dead source does not hide the others
                _run(["apt-get", *self.options, "update"], self.log)
            found = self._debian(self.options)
        if not found:
            raise CannotPrepare(
                "no Debian mirror answers among apt's sources (RTLS_SERVERS_MIRROR names one)"
            )
        return found[0]

    @staticmethod
    def _debian(options: Sequence[str]) -> list[str]:
        form = "$(REPO_URI)|$(ORIGIN)|$(LABEL)"
        argv = ["apt-get", *options, "indextargets", "--format", form, "Created-By: Packages"]
        lines = subprocess.run(argv, capture_output=True, text=True, check=False).stdout.splitlines()
        rows = sorted({tuple(line.split("|")) for line in lines})
        return [
            row[0] for row in rows if row[1:] == ("Debian", "Debian") and row[0].startswith(("http", "file:"))
        ]

    def fetch_debootstrap(self, mirror: str) -> tuple[Path, Path]:
        """Give the program and its folder of scripts: the installed one, or the package unpacked beside us."""
        if installed := shutil.which("debootstrap"):
            return Path(installed), Path("/usr/share/debootstrap")
        sources = self.folder / "sources.list"
        signed = [path for name in _KEYRINGS if (path := Path("/usr/share/keyrings") / name).exists()]
        suite = next(iter(RECIPE["bases"]))
        sources.write_text(f"deb {f'[signed-by={signed[0]}] ' if signed else ''}{mirror} {suite} main\n")
        options = [*self.options, f"-oDir::Etc::sourcelist={sources}", "-oDir::Etc::sourceparts=/dev/null"]
        _run(["apt-get", *options, "--error-on=any", "update"], self.log)
        _run(["apt-get", *options, "download", "debootstrap"], self.log, cwd=self.folder)
        package = next(self.folder.glob("debootstrap_*.deb"))
        _run(["dpkg-deb", "-x", package, self.folder / "debootstrap"], self.log)
        tree = self.folder / "debootstrap" / "usr"
        return tree / "sbin" / "debootstrap", tree / "share" / "debootstrap"

    @staticmethod
    def transport() -> str:
        """Give the settings by which this machine's apt reaches its mirror, to be used in the roots."""
        argv = ["apt-config", "dump", "Acquire"]
        lines = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.splitlines()
        kept = ("Acquire::http", "Acquire::Retries", "Acquire::ForceIPv")
        return "".join(f"{line}\n" for line in lines if line.startswith(kept))


def _build_base(suite: str, building: Path, mirror: str, debootstrap: tuple[Path, Path], logs: Path) -> None:
    """Build the base of a suite and freshen its lists."""
    begun = time.monotonic()
    program, scripts = debootstrap
    root = building / suite
    script = scripts / "scripts" / suite
    if not script.exists():  # a suite younger than debootstrap
        script = scripts / "scripts" / "sid"
    packages = ",".join(RECIPE["bases"][suite])
    private = ["unshare", "-m", "-p", "-f", "--kill-child", "--mount-proc"]
    argv = [*private, program, "--variant=minbase", f"--include={packages}", suite, root, mirror, script]
    _run(argv, logs / f"{suite}.log", env={**os.environ, "DEBOOTSTRAP_DIR": str(scripts)})
    policy = root / "usr" / "sbin" / "policy-rc.d"
    policy.write_text("#!/bin/sh\nexit 101\n")  # no package may start its server
    policy.chmod(0o755)
    settings = (
        'Acquire::Check-Valid-Until "false";\nAcquire::GzipIndexes "true";\nAcquire::Languages "none";\n'
    )
    (root / "etc/apt/apt.conf.d/99servers").write_text(settings + _Apt.transport())
    for name in ("etc/resolv.conf", "etc/hosts"):
        if (Path("/") / name).exists():
            (root / name).unlink(missing_ok=True)
            shutil.copy(Path("/") / name, root / name)
    authorities = root / "etc/ssl/certs/ca-certificates.crt"
    if Path(
        "/", *authorities.parts[-4:]
    ).exists():  # the machine may know its mirror by an authority of its own
        shutil.copy(Path("/", *authorities.parts[-4:]), authorities)
    _run([*private, "chroot", root, "apt-get", "update"], logs / f"{suite}.log", env=_environment())
    _say(f"{suite} base in {time.monotonic() - begun:.0f} s")


def _environment() -> dict[str, str]:
    proxies = {name: value for name, value in os.environ.items() if name.lower().endswith("_proxy")}
    path = "/usr/sbin:/usr/bin:/sbin:/bin"
    return {**proxies, "PATH": path, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}


def _build_layer(name: str, building: Path, logs: Path) -> None:
    """Install a server's packages into a layer of its own over its base."""
    begun = time.monotonic()
    base, *packages = RECIPE["layers"][name]
    work, root = building / "work" / name, building / "mnt" / name
    for folder in (building / name, work, root):
        folder.mkdir(parents=True)
    script = (
        'mount -t proc proc "$0/proc"; '  # packages fail to configure without it
        'chroot "$0" apt-get -qy --no-install-recommends install ' + " ".join(packages) + "; "
        'chroot "$0" apt-get clean'
    )
    argv = _overlay([building / base], building / name, work, root, script)
    private = ["unshare", "-m", "-p", "-f", "--kill-child", "--mount-proc"]
    _run([*private, *argv], logs / f"{name}.log", env=_environment())
    _say(f"{name} in {time.monotonic() - begun:.0f} s")


def _install_npm(roots: Path, log: Path) -> dict[str, str]:
    """Install the npm server with the machine's own node; gives the reason where it cannot be."""
    folder = roots / NPM_FOLDER
    if (folder / "node_modules").exists():
        return {}
    if missing := [tool for tool in ("node", "npm") if shutil.which(tool) is None]:
        return {NPM_FOLDER: f"{' and '.join(missing)} not installed"}
    building = roots / f".{NPM_FOLDER}"
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir()
    argv = ["npm", "install", "--prefix", building, "--ignore-scripts", "--no-audit", "--no-fund"]
    try:
        _run([*argv, *RECIPE["npm"]], log)
    except CannotPrepare as problem:
        return {NPM_FOLDER: str(problem)}
    building.rename(folder)
    _say(f"{NPM_FOLDER} from npm")
    return {}


def _build(folder: Path, roots: Path) -> None:
    """Build all roots in a folder of another name, and give it its name when they are complete."""
    _check_machine(folder)
    for left in folder.glob(".building-*"):
        shutil.rmtree(left, ignore_errors=True)
    building = folder / f".building-{roots.name}"
    logs = folder / "logs"
    shutil.rmtree(logs, ignore_errors=True)
    for path in (building, logs):
        path.mkdir(parents=True)
    apt = _Apt(building / "apt", logs / "apt.log")
    mirror = apt.mirror()
    debootstrap = apt.fetch_debootstrap(mirror)

    def build_suite(suite: str) -> None:
        _build_base(suite, building, mirror, debootstrap, logs)
        for name, (base, *_packages) in RECIPE["layers"].items():
            if base == suite:
                _build_layer(name, building, logs)

    with ThreadPoolExecutor() as pool:
        suites = [pool.submit(build_suite, suite) for suite in RECIPE["bases"]]
        missing = _install_npm(building, logs / "npm.log")
        for suite in suites:
            suite.result()
    for suite in RECIPE["bases"]:  # how the mirror is reached is this machine's business, not the roots'
        (building / suite / "etc/apt/apt.conf.d/99servers").unlink()
        shutil.rmtree(building / suite / "var/lib/apt/lists")
    for name in ("apt", "work", "mnt"):
        shutil.rmtree(building / name)
    (building / "ready.json").write_text(json.dumps({"missing": missing}))
    building.rename(roots)
    for other in folder.iterdir():  # roots of earlier recipes
        if other != roots and (other / "ready.json").exists():
            shutil.rmtree(other, ignore_errors=True)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keep a second preparation waiting until the first is through."""
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            _say("another preparation is running: waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def prepare() -> Path:
    """Build what is missing, and give the folder of the finished roots.

    Raises
    ------
    CannotPrepare
        With the reason, which is recorded for `ready_roots` too.
    """
    folder, recipe = cache_folder(), recipe_hash()
    roots = folder / recipe
    status = folder / "status.json"
    try:
        _check_user()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with _locked(folder):
                if not (roots / "ready.json").exists():
                    begun = time.monotonic()
                    _build(folder, roots)
                    _say(f"all roots in {time.monotonic() - begun:.0f} s, kept in {roots}")
                elif json.loads((roots / "ready.json").read_text())["missing"]:
                    missing = _install_npm(roots, folder / "logs" / "npm.log")
                    (roots / "ready.json").write_text(json.dumps({"missing": missing}))
        except OSError as error:
            raise CannotPrepare(f"cannot build the real servers: {error}") from error
        ready_roots()
    except CannotPrepare as problem:
        with contextlib.suppress(OSError):
            status.write_text(json.dumps({"recipe": recipe, "reason": str(problem)}))
        raise
    status.unlink(missing_ok=True)
    return roots


def main() -> int:
    """Prepare, and say in one line what came of it."""
    try:
        roots = prepare()
    except CannotPrepare as problem:
        _say(f"skipped, {problem}")
        return 0
    except KeyboardInterrupt:
        return 130
    _say(f"ready in {roots}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
