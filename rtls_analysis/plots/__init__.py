"""Plots: Axes in and out, a colour per word everywhere, counts shown, what could not be told drawn too."""

from __future__ import annotations

from importlib import import_module
from typing import Any

_FUNCTIONS = {
    "concentration": ("leave_one_out", "lorenz_curve", "one_switches", "server_sizes", "top_providers"),
    "delays": ("retry_schedule", "time_to_delivery"),
    "deployment": (
        "adoption_by_rank",
        "deployment_rates",
        "mechanism_matrix",
        "mechanism_sets",
        "rates_by_unit",
        "share_bars",
    ),
    "experiment": ("promises", "requiretls_experiment"),
    "failures": (
        "failure_reasons",
        "failures_by",
        "failures_over_time",
        "host_and_message_rates",
        "repeated_failures",
    ),
    "log_tls": ("key_exchanges", "tls_versions"),
    "policies": ("sts_states",),
    "rates": ("rate_differences", "rate_intervals"),
    "readiness": ("loss_reasons", "readiness_by_reading", "readiness_funnel"),
    "series": ("adoption_curve",),
    "servers": ("certificate_verdicts", "probe_funnel", "tlsa_errors_by_unit"),
    "snapshots": ("changes_by_feature", "transition_matrix"),
    "vantages": ("agreement_matrix", "vantage_reasons"),
    "what_if": ("what_if_losses", "what_if_obstacles", "what_if_totals"),
}
_HOMES = {name: module for module, names in _FUNCTIONS.items() for name in names}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    """Import a plot's module when it is first asked for: drawing is not everybody's wish."""
    if (module := _HOMES.get(name)) is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{module}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
