"""What an obstacle means for a message, and what the one who runs the domain or the server can do about it."""

from __future__ import annotations

from collections.abc import Mapping

from rtls_analysis.outcomes import Obstacle
from rtls_analysis.schema import Demand

WHAT_IT_MEANS: Mapping[Obstacle, str] = {
    Obstacle.DNS_ERROR: "a DNS lookup failed or was bogus; a sender tries again later",
    Obstacle.NO_MX: "the domain takes no mail: no MX host with an address",
    Obstacle.UNREACHABLE: "no session that would allow a verdict",
    Obstacle.STS_FORBIDS_HOST: "the domain's MTA-STS policy (enforce) does not allow this host or its certificate",
    Obstacle.MX_UNAUTHENTICATED: "the MX name is not secured: no DNSSEC, and no MTA-STS policy that names it",
    Obstacle.NO_STARTTLS: "the server does not offer STARTTLS",
    Obstacle.TLS_FAILED: "the server offers STARTTLS, but TLS does not come about",
    Obstacle.TLS_TOO_OLD: "the TLS version is below the minimum",
    Obstacle.DANE_MISMATCH: "the certificate does not match the host's TLSA records",
    Obstacle.CERTIFICATE_UNVERIFIED: "the certificate cannot be verified",
    Obstacle.REQUIRETLS_NOT_OFFERED: "the server does not announce REQUIRETLS after STARTTLS",
    Obstacle.UNKNOWN: "something on the way could not be told",
}
"""What an obstacle means for a REQUIRETLS message, in a phrase."""

WHAT_TO_DO: Mapping[Obstacle, str] = {
    Obstacle.DNS_ERROR: "Mend the zone or its signatures (a bogus answer is often an expired signature).",
    Obstacle.NO_MX: "Nothing, if the domain shall not receive mail.",
    Obstacle.UNREACHABLE: "Scan again later, or from another place, before drawing a conclusion.",
    Obstacle.STS_FORBIDS_HOST: "Name the host in the policy's mx lines, and give it a certificate from a public CA "
    "that names it; change the id of the _mta-sts record with the policy.",
    Obstacle.MX_UNAUTHENTICATED: "Sign the zone with DNSSEC, or publish an MTA-STS policy in mode enforce that names "
    "the MX hosts.",
    Obstacle.NO_STARTTLS: "Give the server a certificate and turn STARTTLS on.",
    Obstacle.TLS_FAILED: "Look into the server's TLS settings and its log at the time of this scan.",
    Obstacle.TLS_TOO_OLD: "Allow TLS 1.2 and 1.3 (RFC 9325).",
    Obstacle.DANE_MISMATCH: "Publish a TLSA record for the key in use (3 1 1), and roll keys over two TTLs after it.",
    Obstacle.CERTIFICATE_UNVERIFIED: "Install a certificate of a public CA for the MX host's name with its "
    "whole chain, or publish TLSA records (3 1 1) in a signed zone.",
    Obstacle.REQUIRETLS_NOT_OFFERED: "Run a server that announces REQUIRETLS (RFC 8689); Postfix does from 3.11.",
    Obstacle.UNKNOWN: "See the steps that could not be told; DNSSEC needs a validating resolver on this machine.",
}
"""What the one who runs the domain or the server can do about an obstacle."""

_UNDER_A_RULE: Mapping[tuple[Demand, Obstacle], tuple[str, str]] = {
    (Demand.VERIFIED, Obstacle.CERTIFICATE_UNVERIFIED): (
        "neither DANE nor an MTA-STS policy authenticates the server",
        "Publish TLSA records (3 1 1) in a signed zone, or an MTA-STS policy in mode enforce and a certificate of a "
        "public CA that names the MX host.",
    ),
    (Demand.PKIX, Obstacle.CERTIFICATE_UNVERIFIED): (
        "the certificate is not of a trusted CA, or not for the MX host's name, or expired",
        "Install a certificate of a public CA for the MX host's name with its whole chain.",
    ),
}


def meaning(obstacle: Obstacle, demand: Demand = Demand.REQUIRETLS) -> str:
    """What an obstacle means for mail whose sender asks for this, in a phrase."""
    return _UNDER_A_RULE.get((demand, obstacle), (WHAT_IT_MEANS.get(obstacle, ""), ""))[0]


def advice(obstacle: Obstacle, demand: Demand = Demand.REQUIRETLS) -> str:
    """What would have to change for such mail to go, in a sentence."""
    return _UNDER_A_RULE.get((demand, obstacle), ("", WHAT_TO_DO.get(obstacle, "")))[1]
