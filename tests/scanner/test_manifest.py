"""The manifest: what a scan was, each of its runs, and what a user has to say before it is one."""

from __future__ import annotations

import errno
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import rtls_analysis as rtls
from rtls_analysis.lab import Lab
from rtls_analysis.scanner import campaign, engine
from rtls_analysis.scanner.engine import Engine
from rtls_analysis.scanner.manifest import note_run
from rtls_analysis.scanner.options import Manners, make_options
from rtls_analysis.scanner.tls import lax_context
from rtls_analysis.store import Journals, Snapshot, SnapshotWriter

WHO = {"ehlo_name": "probe.example.org", "contact": "me@example.org"}


def test_a_scan_can_be_repeated_from_its_manifest(tiny: Snapshot) -> None:
    """List, vantage, versions, roots, OpenSSL policy, manners, time limits, rules, resolver and seed are in it."""
    manifest = tiny.manifest
    assert len(manifest["scan"]["domain_list_sha256"]) == 64
    assert manifest["scan"]["seed"] == 0
    assert manifest["roots"]["sha256"] == manifest["scan"]["roots_sha256"]
    assert manifest["vantage"]["ehlo_name"] == "probe.lab.test"
    assert manifest["manners"] == {name: getattr(Manners(), name) for name in Manners.__slots__}
    assert {"python", "platform", "openssl", "cryptography", "publicsuffixlist"} <= manifest[
        "versions"
    ].keys()
    assert {"timeouts", "concurrency", "proxy", "rules", "resolver", "plan", "started_at"} <= manifest.keys()
    policy = manifest["openssl"]
    assert policy["ciphers_offered"] == [cipher["name"] for cipher in lax_context().get_ciphers()]
    assert policy["security_level"] == 0
    assert "resumed" not in manifest


def cut_off(lab: Lab, out: Path, **more: Any) -> Snapshot:
    """A scan that was planned and has made no contact yet."""
    given = {**lab.scan_options, "progress": False, **more}
    return rtls.scan(lab.domains[:12], out, plan_only=True, **given)


def test_a_run_that_resumes_tells_what_was_other(lab: Lab, tmp_path: Path) -> None:
    """Manners and concurrency may change between two runs of a scan: the manifest tells which held when."""
    out = tmp_path / "scan"
    cut_off(lab, out)
    given: dict[str, Any] = {**lab.scan_options, "progress": False, "concurrency": 3}
    done = rtls.scan(lab.domains[:12], out, manners={"own_addresses": True, "address_spacing": 0.01}, **given)
    assert done.is_complete
    assert done.manifest["runs"] == 2
    (run,) = done.manifest["resumed"]
    assert run["concurrency"] == 3
    assert run["manners"]["own_addresses"] is True
    assert not {"timeouts", "resolver", "vantage", "openssl", "versions"} & run.keys()  # as they were
    assert done.manifest["manners"]["own_addresses"] is False
    assert "address_spacing" not in set(rtls.audit(done)["rule"])


def test_a_resolver_that_is_not_believed_any_more_is_told() -> None:
    """The warning of a later run is shown with the snapshot, as that of the first would be."""
    first: dict[str, Any] = {
        "resolver": {"server": "a", "warning": ""},
        "vantage": {"ipv4": True, "warnings": ["x"]},
    }
    later: dict[str, Any] = {
        "resolver": {"server": "b", "warning": "DANE was not tested"},
        "vantage": {"ipv4": True},
    }
    note_run(first, later, resumed=True)
    assert first["resumed"][0].keys() == {"at", "resolver"}
    assert first["resolver"]["warning"].endswith("DANE was not tested")


@pytest.mark.parametrize("is_done", [True, False])
def test_other_rules_are_refused(lab: Lab, tmp_path: Path, is_done: bool) -> None:
    """The manifest names the rules that decided: the same scan cannot have two readings in one directory."""
    out, given = tmp_path / "scan", {**lab.scan_options, "progress": False}
    if is_done:
        rtls.scan(lab.domains[:12], out, **given)
    else:
        cut_off(lab, out)
    with pytest.raises(
        rtls.StoreProblem, match=r"under other rules \(different minimum tls\); .*rtls\.judge"
    ):
        rtls.scan(lab.domains[:12], out, rules={"minimum_tls": "1.3"}, **given)
    assert rtls.scan(lab.domains[:12], out, rules={"minimum_tls": "1.2"}, **given).is_complete


# -- what is left behind -------------------------------------------------------------------------------------


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary directories go."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def _full(*_arguments: object, **_more: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(
    ("writer", "method"), [(SnapshotWriter, "fold"), (Journals, "append"), (SnapshotWriter, "write_manifest")]
)
def test_a_scan_in_memory_leaves_no_folder_behind(
    lab: Lab, scratch: Path, monkeypatch: pytest.MonkeyPatch, writer: type, method: str
) -> None:
    """Also where it ends because its temporary folder cannot be written."""
    monkeypatch.setattr(writer, method, _full)
    with pytest.raises((rtls.ScanStopped, OSError)):
        rtls.scan(lab.domains[:3], **{**lab.scan_options, "progress": False})
    assert list(scratch.glob("rtls-*")) == []


def test_a_fault_of_ours_leaves_no_folder_behind(
    lab: Lab, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does a scan that ends by a fault in the package."""

    def fault(engine: Engine) -> None:
        raise RuntimeError("a fault")

    monkeypatch.setattr(Engine, "judge", fault)
    with pytest.raises(RuntimeError, match="a fault"):
        rtls.scan(lab.domains[:3], **{**lab.scan_options, "progress": False})
    assert list(scratch.glob("rtls-*")) == []


def test_what_was_done_in_memory_is_handed_over(
    lab: Lab, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A scan without a directory that has to stop gives what it has with the exception."""

    async def stop(*_arguments: object) -> None:
        raise rtls.ScanStopped("the network is gone")

    monkeypatch.setattr(Engine, "_contact", stop)
    with pytest.raises(rtls.ScanStopped) as caught:
        rtls.scan(lab.domains[:3], **{**lab.scan_options, "progress": False})
    assert len(caught.value.snapshot.hosts) > 0
    assert list(scratch.glob("rtls-*")) == []


# -- the caller ----------------------------------------------------------------------------------------------


def test_a_text_that_names_a_file_is_no_domain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether the list or the domain is meant, the user has to say: neither is guessed."""
    monkeypatch.chdir(tmp_path)
    Path("domains.txt").write_text("example.org\n")
    with pytest.raises(rtls.ListProblem, match=r"'domains\.txt' is a file here; give Path\('domains\.txt'\)"):
        rtls.scan("domains.txt", **WHO)
    assert [target.domain for target in campaign._targets(Path("domains.txt"))] == ["example.org"]
    assert [target.domain for target in campaign._targets("example.org")] == ["example.org"]


@pytest.mark.parametrize(("concurrency", "workers"), [(50, 4), (50, 3), (7, 7), (10, 2), (5, 4)])
def test_workers_together_have_no_more_connections_than_asked_for(
    tmp_path: Path, concurrency: int, workers: int
) -> None:
    """Whatever does not divide evenly is not rounded up."""
    resolver: Any = SimpleNamespace(trusted=True, reaches_out=False)
    options = make_options({**WHO, "concurrency": concurrency})
    crew = engine._Crew(options, tmp_path, workers, resolver)
    shares = [begin.options.concurrency for begin in crew._begin]
    assert sum(shares) == concurrency
    assert min(shares) >= 1


def test_no_more_workers_than_connections(lab: Lab) -> None:
    """A scan of one connection at a time needs one process."""
    given: dict[str, Any] = {**lab.scan_options, "progress": False, "concurrency": 1}
    snapshot = rtls.scan(lab.domains[:3], workers=2, **given)
    assert snapshot.is_complete
    assert "run_at_once" not in set(rtls.audit(snapshot)["rule"])
