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

from rtls_analysis.scanner.options import EACH, Options
from rtls_analysis.scanner.resolver import ResolverCheck
from rtls_analysis.scanner.targets import Target
from rtls_analysis.scanner.tls import CIPHERS, lax_context
from rtls_analysis.scanner.vantages import Vantage, own_vantage
from rtls_analysis.standards.certificates import Roots
from rtls_analysis.store import FORMAT
from rtls_analysis.verdicts import rules_record

_LIBRARIES = ("cryptography", "dnspython", "h11", "idna", "pandas", "publicsuffixlist", "pyarrow")


def scan_identity(
    targets: Sequence[Target], options: Options, roots: Roots, places: Sequence[Vantage] = ()
) -> dict[str, Any]:
    """Say what makes two scans the same one: what is asked of whom, not how fast or by which reading.

    From where counts only in a scan that contacts every target from each of its `places` (without any: from here).
    """
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
        **({"vantages": _names(options, places)} if options.vantage == EACH else {}),
    }


def _names(options: Options, places: Sequence[Vantage]) -> list[str]:
    return sorted({place.name for place in places} or {options.vantage_name})


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


def describe_circumstances(
    options: Options, server: str, check: ResolverCheck, here: Vantage | None = None
) -> dict[str, Any]:
    """Say under what circumstances a run is made: from where, how, and with what; another run's may differ.

    `here` is the place where that is done, by default this machine's. `vantages` is a list of all of them.
    """
    place = (here or own_vantage(options)).as_dict()
    resolver = {"server": server, "trusted": check.trusted, "detail": check.detail}
    return {
        "vantage": place,
        "vantages": [{**place, "resolver": resolver, "workers": 1}],
        "resolver": {
            **resolver,
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
