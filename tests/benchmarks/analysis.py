"""The tables of the study on a scan of many domains: seconds each, and how they grow with the scan.

    python tests/benchmarks/analysis.py [--domains 100000]

A scan of the lab is copied under other names until it is large enough: the hosts of its providers are shared by all
copies, each other host is copied with its domain. Each table is made at a quarter of the size and at the whole; the
last column is the ratio of the two times, 4 where a table grows as its scan does.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
import pandas as pd

import rtls_analysis as rtls
from rtls_analysis.analysis.cohorts import cohorts
from rtls_analysis.analysis.concentration import (
    leave_one_out,
    one_switches,
    provider_concentration,
    providers,
    server_sizes,
)
from rtls_analysis.analysis.deployment import deployment, mechanisms, unit_rates
from rtls_analysis.analysis.hops import hop_verdicts
from rtls_analysis.analysis.policies import sts_states
from rtls_analysis.analysis.rates import rates
from rtls_analysis.analysis.readiness import loss_reasons, readiness_funnel, readings
from rtls_analysis.analysis.series import adoption
from rtls_analysis.analysis.servers import certificate_verdicts, probe_funnel, tlsa_errors
from rtls_analysis.analysis.snapshots import compare, paired_changes, transitions
from rtls_analysis.analysis.vantages import agreement, families
from rtls_analysis.lab.world import PROVIDERS
from rtls_analysis.store import Snapshot


def copied(scan: Snapshot, domains: int) -> Snapshot:
    """A scan of so many domains, made of copies of a small one."""
    is_shared = scan.hosts["provider"].isin(list(PROVIDERS))
    shared = set(scan.hosts["mx_host"][is_shared])
    frames: dict[str, list[pd.DataFrame]] = {name: [] for name in ("domains", "mx", "hosts", "sessions")}
    for number in range(-(-domains // len(scan.domains))):
        for name, parts in frames.items():
            frame = scan.table(name)
            if name in ("hosts", "sessions") and number:
                frame = frame[~frame["mx_host"].isin(shared)]
            names = {
                column: frame[column].astype(object) for column in ("domain", "mx_host") if column in frame
            }
            for column, values in names.items():
                own = ~values.isin(shared)
                names[column] = values.where(~own, f"c{number}-" + values.astype(str))
            if "provider" in frame:
                own = frame["provider"].notna() & ~frame["provider"].isin(list(PROVIDERS))
                names["provider"] = frame["provider"].where(~own, f"c{number}-" + frame["provider"])
            frame = frame.assign(**{column: values.astype("str") for column, values in names.items()})
            if name == "domains":
                first = number * len(frame) + 1
                frame["rank"] = pd.array(np.arange(first, first + len(frame)), dtype="Int64")
            parts.append(frame)
    whole = {name: pd.concat(parts, ignore_index=True) for name, parts in frames.items()}
    whole |= {name: scan.table(name) for name in ("certificates", "attempts")}
    whole["domains"] = whole["domains"].iloc[:domains].reset_index(drop=True)
    return Snapshot(None, dict(scan.manifest), scan.roots_pem, whole)


def later(scan: Snapshot) -> Snapshot:
    """The same scan a year on, one domain in ten gone."""
    names = ("mx", "hosts", "sessions", "certificates", "attempts")
    frames = {name: scan.table(name) for name in names}
    domains = scan.domains[scan.domains.index % 10 != 0].reset_index(drop=True)
    domains.loc[domains.index % 7 == 0, "requiretls_offered"] = "all"
    manifest = {**scan.manifest, "started_at": "2027-11-25T00:00:00+00:00"}
    return Snapshot(None, manifest, scan.roots_pem, {**frames, "domains": domains})


TABLES: dict[str, Callable[[Snapshot, Snapshot], object]] = {
    "rates by provider": lambda s, _l: rates(s.domains, of="requiretls_ready", by="provider"),
    "rates in clusters": lambda s, _l: rates(s.domains, of="requiretls_ready", clusters="provider"),
    "cohorts": lambda s, _l: cohorts(s.domains, populations={"half": list(s.domains["domain"][::2])}),
    "hops, judged": lambda s, _l: hop_verdicts(s),
    "readiness funnel": lambda s, _l: readiness_funnel(s),
    "by provider": lambda s, _l: readiness_funnel(s, unit="provider"),
    "by rank band": lambda s, _l: readiness_funnel(s, by="rank_band"),
    "reasons": lambda s, _l: loss_reasons(s),
    "ten readings": lambda s, _l: readings(s),
    "deployment": lambda s, _l: deployment(s),
    "by rank bin": lambda s, _l: deployment(s, by="rank_bin"),
    "by unit": lambda s, _l: unit_rates(s),
    "mechanisms": lambda s, _l: mechanisms(s),
    "probe funnel": lambda s, _l: probe_funnel(s),
    "certificates": lambda s, _l: certificate_verdicts(s, unit="domain"),
    "TLSA errors": lambda s, _l: tlsa_errors(s),
    "MTA-STS": lambda s, _l: sts_states(s),
    "providers": lambda s, later_: providers(s, later_),
    "concentration": lambda s, _l: provider_concentration(s),
    "sizes of servers": lambda s, _l: server_sizes(s),
    "leave one out": lambda s, _l: leave_one_out(s, largest=None),
    "one switches": lambda s, _l: one_switches(s),
    "compare": compare,
    "transitions": transitions,
    "paired changes": paired_changes,
    "adoption": lambda s, later_: adoption([s, later_]),
    "two vantages": agreement,
    "two families": lambda s, _l: families(s),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--domains", type=int, default=100_000)
    arguments = parser.parse_args()
    with rtls.start_lab(400) as lab:
        scan = rtls.scan(lab.domains, progress=False, **lab.scan_options)
    took: dict[str, list[float]] = {name: [] for name in TABLES}
    for domains in (arguments.domains // 4, arguments.domains):
        world = copied(scan, domains)
        after = later(world)
        for name, make in TABLES.items():
            begin = time.process_time()
            make(world, after)
            took[name].append(time.process_time() - begin)
    print(f"{'table':<20}{arguments.domains // 4:>12,}{arguments.domains:>12,}{'ratio':>8}")
    for name, (few, many) in took.items():
        print(f"{name:<20}{few:>11.2f}s{many:>11.2f}s{many / max(few, 1e-9):>8.1f}")


if __name__ == "__main__":
    main()
