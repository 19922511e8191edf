"""What a snapshot's manifest says of its scan: enough to know what it means, and to make it again."""

from __future__ import annotations

import datetime as dt
import hashlib
import os
import platform
import ssl
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rtls_analysis.scanner.addresses import families
from rtls_analysis.scanner.options import Options
from rtls_analysis.scanner.resolver import ResolverCheck
from rtls_analysis.scanner.targets import Target
from rtls_analysis.scanner.tls import CIPHERS, lax_context
from rtls_analysis.standards.certificates import Roots
from rtls_analysis.store import FORMAT
from rtls_analysis.verdicts import rules_record

_LIBRARIES = ("cryptography", "dnspython", "h11", "idna", "pandas", "publicsuffixlist", "pyarrow")


def scan_identity(targets: Sequence[Target], options: Options, roots: Roots) -> dict[str, Any]:
    """Say what makes two scans the same one: what is asked of whom, not how fast or by which reading."""
    names = hashlib.sha256()
    for target in targets:
        names.update(f"{target.domain}\t{target.rank}\n".encode("utf-8", "backslashreplace"))
    return {
        "domains": len(targets),
        "domain_list_sha256": names.hexdigest(),
        "smtp_port": options.smtp_port,
        "https_port": options.https_port,
        "allow_special": sorted(options.allow_special),
        "opt_out": sorted(options.opt_out),
        "roots_sha256": roots.sha256,
        "seed": options.seed,
        "sample_shared": options.sample_shared,
    }


def make_manifest(
    identity: Mapping[str, Any],
    targets: Sequence[Target],
    options: Options,
    roots: Roots,
    circumstances: Mapping[str, Any],
) -> dict[str, Any]:
    """Write the manifest of a scan that begins."""
    return {
        "format": FORMAT,
        "state": "running",
        "started_at": _now(),
        "scan": dict(identity),
        "bad_names": sum(1 for target in targets if target.problem),
        "rules": rules_record(options.rules),
        "sample_shared": options.sample_shared,
        "roots": {
            "source": str(options.ca_file) if options.ca_file else f"certifi {version('certifi')}",
            "sha256": roots.sha256,
        },
        **circumstances,
    }


def describe_circumstances(options: Options, server: str, check: ResolverCheck) -> dict[str, Any]:
    """Say under what circumstances a run is made: from where, how, and with what; another run's may differ."""
    has_v4, has_v6 = families()
    return {
        "vantage": {
            "ehlo_name": options.ehlo_name,
            "contact": options.contact,
            "ipv4": has_v4,
            "ipv6": has_v6,
        },
        "resolver": {
            "server": server,
            "trusted": check.trusted,
            "detail": check.detail,
            "warning": "" if check.trusted else f"DNSSEC and DANE were not tested: {check.detail}",
        },
        "timeouts": _fields(options.timeouts),
        "manners": _fields(options.manners),
        "concurrency": options.concurrency,
        "proxy": options.proxy is not None,
        "openssl": _openssl(),
        "versions": {
            "rtls_analysis": version("rtls_analysis"),
            "python": platform.python_version(),
            "platform": platform.platform(),
            "openssl": ssl.OPENSSL_VERSION,
            **{name: version(name) for name in _LIBRARIES},
        },
    }


def note_run(manifest: dict[str, Any], circumstances: Mapping[str, Any], *, resumed: bool) -> None:
    """Count a run of a scan; one that resumes it notes besides in what its circumstances differ from the first.

    `resumed` in the manifest lists those runs: when each began (`at`), and what was other than above.
    """
    manifest["runs"] = manifest.get("runs", 0) + 1
    if not resumed:
        return
    others = {name: value for name, value in circumstances.items() if value != _of_first(manifest, name)}
    manifest.setdefault("resumed", []).append({"at": _now(), **others})
    warning = circumstances["resolver"]["warning"]
    if warning and not manifest["resolver"]["warning"]:
        manifest["resolver"]["warning"] = f"of what was looked up when the scan was resumed, {warning}"


def _of_first(manifest: Mapping[str, Any], name: str) -> Any:
    value = manifest.get(name)
    if name == "vantage" and isinstance(value, Mapping):
        return {key: held for key, held in value.items() if key != "warnings"}
    return value


def _now() -> str:
    return dt.datetime.now(dt.UTC).isoformat()


def _fields(record: Any) -> dict[str, Any]:
    return {name: getattr(record, name) for name in record.__slots__}


def _openssl() -> dict[str, Any]:
    """Describe what is offered to mail servers, which OpenSSL's build and configuration have a say in."""
    context = lax_context()
    offered = [cipher["name"] for cipher in context.get_ciphers()]
    config = os.environ.get("OPENSSL_CONF") or str(
        Path(ssl.get_default_verify_paths().openssl_cafile).with_name("openssl.cnf")
    )
    try:
        digest = hashlib.sha256(Path(config).read_bytes()).hexdigest()
    except OSError:
        digest = None
    return {
        "ciphers": CIPHERS,
        "ciphers_offered": offered,
        "minimum_version": context.minimum_version.name,
        "security_level": context.security_level,
        "options": int(context.options),
        "config": config,
        "config_sha256": digest,
    }
