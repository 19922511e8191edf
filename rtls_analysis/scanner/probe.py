"""One MX host at one address: a session on the wire, turned into a row of `sessions`."""

from __future__ import annotations

import datetime as dt
import ssl
import time
from dataclasses import dataclass
from typing import Any

from rtls_analysis.outcomes import FeatureState, SessionOutcome, SessionStage, TlsaState
from rtls_analysis.scanner.smtp_client import Connect, Limits, run_session
from rtls_analysis.standards.certificates import describe_certificate


@dataclass(frozen=True, slots=True)
class ProbeTarget:
    """Where to knock, the name to ask for in the TLS handshake, and the host's TLSA records to judge it by."""

    mx_host: str
    address: str
    port: int
    sni: str
    tlsa_state: TlsaState = TlsaState.NONE
    tlsa_base: str | None = None
    tlsa: tuple[str, ...] = ()

    @property
    def host_row(self) -> dict[str, Any]:
        """What of the host's row counts for the verdicts on a session."""
        return {"tlsa_state": self.tlsa_state, "tlsa_base": self.tlsa_base, "tlsa": self.tlsa}


async def probe(
    target: ProbeTarget,
    *,
    ehlo_name: str,
    limits: Limits,
    context: ssl.SSLContext,
    vantage: str | None = None,
    source: str | None = None,
    connect: Connect | None = None,
) -> tuple[dict[str, Any], tuple[bytes, ...]]:
    """Probe one address: its row of evidence (no verdict columns), and the certificates it presented.

    `vantage` names the place from which that is done; the rest is as for `smtp_client.run_session`.

    Raises
    ------
    LocalTrouble
        This machine could not try (no descriptors, no buffers): never a fact about the server.
    """
    started_at, begin = dt.datetime.now(dt.UTC), time.monotonic()
    record, tls = await run_session(
        target.address,
        target.port,
        target.sni,
        ehlo_name=ehlo_name,
        limits=limits,
        context=context,
        source=source,
        connect=connect,
    )
    row = _row(target, started_at, time.monotonic() - begin, vantage)
    row.update(
        outcome=record.outcome,
        stage=record.stage,
        reply_code=record.reply_code,
        enhanced_code=record.enhanced_code,
        reply_text=record.reply_text,
        banner=record.banner,
        ehlo_plain=record.ehlo_plain,
        ehlo_tls=record.ehlo_tls,
        starttls=record.starttls,
        requiretls_plain=record.requiretls_plain,
        requiretls_tls=record.requiretls_tls,
        injected_bytes=record.injected_bytes,
        injected_text=record.injected_text or None,
        detail=record.detail or None,
    )
    if tls is None:
        return row, ()
    row.update(
        tls_version=tls.version,
        cipher=tls.cipher,
        cipher_bits=tls.cipher_bits,
        key_exchange=tls.key_exchange,
    )
    certificates = [describe_certificate(der) for der in tls.chain]
    row["chain_sha256"] = tuple(certificate.sha256 for certificate in certificates)
    if certificates:
        row["certificate_not_after"] = certificates[0].not_after
        row["certificate_key"] = certificates[0].key or None
    return row, tls.chain


def not_contacted(
    target: ProbeTarget, outcome: SessionOutcome, detail: str, *, vantage: str | None = None
) -> dict[str, Any]:
    """Give the row of an address that was left alone, with the reason."""
    row = _row(target, dt.datetime.now(dt.UTC), 0.0, vantage)
    row.update(
        attempts=0,
        outcome=outcome,
        stage=SessionStage.CONNECT,
        starttls=FeatureState.NOT_TESTED,
        requiretls_plain=FeatureState.NOT_TESTED,
        requiretls_tls=FeatureState.NOT_TESTED,
        detail=detail,
    )
    return row


def _row(
    target: ProbeTarget, started_at: dt.datetime, duration: float, vantage: str | None
) -> dict[str, Any]:
    return {
        "vantage": vantage,
        "mx_host": target.mx_host,
        "address": target.address,
        "port": target.port,
        "sni": target.sni,
        "started_at": started_at,
        "duration_seconds": round(duration, 6),
        "attempts": 1,
        "injected_bytes": 0,
    }
