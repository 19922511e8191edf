"""One colour per word, the same in every plot, told apart by colour-blind readers (Okabe and Ito, 2008)."""

from __future__ import annotations

from collections.abc import Mapping

from rtls_analysis.outcomes import Obstacle

READY = "#009e73"
REMAINING = "#0072b2"
NOT_TOLD = "#b0b0b0"

OBSTACLES: Mapping[Obstacle, str] = {
    Obstacle.NO_MX: "#5b5b5b",
    Obstacle.DNS_ERROR: "#8c8c8c",
    Obstacle.UNREACHABLE: NOT_TOLD,
    Obstacle.NO_STARTTLS: "#7a3b00",
    Obstacle.TLS_FAILED: "#d55e00",
    Obstacle.TLS_TOO_OLD: "#f0a36b",
    Obstacle.STS_FORBIDS_HOST: "#8f4f78",
    Obstacle.MX_UNAUTHENTICATED: "#cc79a7",
    Obstacle.DANE_MISMATCH: "#b08900",
    Obstacle.CERTIFICATE_UNVERIFIED: "#e69f00",
    Obstacle.REQUIRETLS_NOT_OFFERED: "#56b4e9",
    Obstacle.UNKNOWN: "#d9d9d9",
}
"""The colour of what stops a message; what could not be told is grey."""
