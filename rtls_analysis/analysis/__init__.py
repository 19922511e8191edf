"""DataFrame in, DataFrame out: a module per question.

The functions are offered here by name, but for those that bear the name of their module (`rates`, `deployment`,
`concentration`, `cohorts`, `what_if`, `follow`): these are offered by the package itself, as `rtls.rates`.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_FUNCTIONS = {
    "concentration": (
        "concentration_ratio",
        "gini",
        "hhi",
        "leave_one_out",
        "lorenz",
        "one_switches",
        "provider_concentration",
        "provider_sizes",
        "providers",
        "server_sizes",
    ),
    "delays": ("cumulative_incidence", "retry_schedule", "survival", "survival_time", "time_to_delivery"),
    "deployment": ("feature_table", "mechanism_pairs", "mechanisms", "shares", "unit_rates"),
    "experiment": ("asked_for_requiretls", "promises", "requiretls_experiment"),
    "failures": ("failure_rates", "failure_reasons", "host_and_message_rates", "repeated_failures"),
    "log_tls": ("key_exchanges", "tls_versions"),
    "policies": ("sts_states",),
    "rates": ("ArtefactWarning", "differences", "with_rates"),
    "readiness": ("loss_reasons", "readiness_funnel", "readings"),
    "series": ("adoption", "turning_points"),
    "servers": ("certificate_verdicts", "errors_by_unit", "probe_funnel", "tlsa_errors", "tlsa_matches"),
    "snapshots": (
        "bowker",
        "compare",
        "compare_vantages",
        "mcnemar",
        "paired_changes",
        "paired_difference",
        "transitions",
        "vantage_reasons",
    ),
    "vantages": ("agreement", "families", "family_differences", "vantage_differences"),
    "what_if": ("not_scanned", "what_if_domains", "what_if_losses", "what_if_totals"),
}
_HOMES = {name: module for module, names in _FUNCTIONS.items() for name in names}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    """Import a function's module when it is first asked for."""
    if (module := _HOMES.get(name)) is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{module}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
