"""The samples of `data/`: real logs, bounces, reports and scans, small enough to travel in the wheel."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rtls_analysis.read.dsn import read_dsns
from rtls_analysis.read.logs import read_connections, read_logs
from rtls_analysis.read.received import read_received
from rtls_analysis.read.tls_reports import read_tls_reports
from rtls_analysis.store import MANIFEST, Snapshot, open_snapshot

if TYPE_CHECKING:
    import pandas as pd

_INSTALLED = Path(__file__).parent / "_data"
_CHECKOUT = Path(__file__).parent.parent / "data"
LOG_YEAR = 2026  # of the logs whose stamps have no year


@dataclass(frozen=True, slots=True)
class Sample:
    """A sample: what it is, the file or folder it is made of, and how that is read."""

    name: str
    what: str
    path: str
    read: Callable[[Path], Any]

    @property
    def location(self) -> Path:
        """Its file or folder: in the installed package, or in the checkout beside it."""
        return data_folder() / self.path


def data_folder() -> Path:
    """Find the folder of the samples; a wheel has it within the package, a checkout beside it."""
    return _INSTALLED if _INSTALLED.is_dir() else _CHECKOUT


# -- how each sort is read -------------------------------------------------------------------------------------


def log_files(folder: Path) -> list[Path]:
    """Find the logs of a sample."""
    return sorted(
        path for path in folder.rglob("*") if path.name in ("maillog", "mainlog") or path.suffix == ".log"
    )


def _deliveries(folder: Path) -> pd.DataFrame:
    return read_logs(log_files(folder), timezone="UTC", year=LOG_YEAR, progress=False)


def _connections(folder: Path) -> pd.DataFrame:
    return read_connections(log_files(folder), timezone="UTC", year=LOG_YEAR, progress=False)


def _bounces(path: Path) -> pd.DataFrame:
    return read_dsns(path, progress=False)


def _tls_reports(folder: Path) -> pd.DataFrame:
    return read_tls_reports(folder, progress=False)


def _hops(path: Path) -> pd.DataFrame:
    return read_received(path, progress=False)


def _series(folder: Path) -> dict[str, Snapshot]:
    return {
        path.name: open_snapshot(path) for path in sorted(folder.iterdir()) if (path / MANIFEST).is_file()
    }


def _rates(path: Path) -> pd.DataFrame:
    import pandas as pd

    dtypes = {"numerator": "Int64", "denominator": "Int64", "rate": "float64"}
    frame = pd.read_csv(path, dtype=dict.fromkeys(_RATE_TEXTS, "str") | dtypes)
    texts = list(_RATE_TEXTS)
    frame[texts] = frame[texts].fillna("")
    return frame


_RATE_TEXTS = ("key", "group", "what", "population", "date", "unit", "sign", "evidence", "source")


def _schedules(path: Path) -> pd.DataFrame:
    import pandas as pd

    frame = pd.read_csv(path)
    return frame.assign(gives_up=frame["gives_up"].eq("yes"))


# -- what there is ---------------------------------------------------------------------------------------------


def _of_server(name: str, program: str) -> Iterator[Sample]:
    yield Sample(name, f"deliveries: a log of {program}", name, _deliveries)
    yield Sample(f"{name}-connections", f"connections: the same log of {program}", name, _connections)


_POSTFIX = "postfix-3.11"
SAMPLES: Mapping[str, Sample] = {
    sample.name: sample
    for sample in (
        *_of_server(_POSTFIX, "Postfix 3.11, a sender for each REQUIRETLS policy"),
        Sample(
            f"{_POSTFIX}-bounces",
            "bounces: what came back to these senders",
            f"{_POSTFIX}/dsns.mbox",
            _bounces,
        ),
        Sample(f"{_POSTFIX}-hops", "hops: the copies that arrived", f"{_POSTFIX}/copies.mbox", _hops),
        Sample(
            f"{_POSTFIX}-scan",
            "a snapshot: a scan of the servers that they sent to",
            f"{_POSTFIX}/scan",
            open_snapshot,
        ),
        *_of_server("exim", "Exim"),
        *_of_server("sendmail", "Sendmail"),
        *_of_server("opensmtpd", "OpenSMTPD"),
        *_of_server("haraka", "Haraka"),
        Sample("tls-reports", "tls_reports: what senders report of two domains", "tls-reports", _tls_reports),
        Sample("received-2019", "hops: a message through a mailing list", "received-2019.eml", _hops),
        Sample("lab-series", "snapshots by date: the lab at three dates, in order", "lab-series", _series),
        Sample(
            "two-vantages",
            "a snapshot: a Postfix seen from each of two places",
            "two-vantages",
            open_snapshot,
        ),
        Sample("published-rates", "a table: rates that studies published", "published-rates.csv", _rates),
        Sample("retry-schedules", "a table: when senders tried again", "retry-schedules.csv", _schedules),
    )
}
"""All samples, by name."""


def load_sample(name: str) -> Any:
    """Load one of the samples that come with the package, without network.

    Parameters
    ----------
    name
        ``"postfix-3.11"``, ``"postfix-3.11-bounces"``, ...; any other name raises an error that lists them all.

    Returns
    -------
    DataFrame, Snapshot or dict
        What the sample is: a table (`deliveries`, `connections`, `bounces`, `tls_reports`, `hops`, or one of the
        published figures), a `Snapshot`, or for ``"lab-series"`` snapshots by date.

    Raises
    ------
    ValueError
        There is no such sample.

    Notes
    -----
    Where each comes from, when and how it was made, and under which licence, is told in ``data/README.md``.

    Examples
    --------
    >>> rates = load_sample("published-rates")
    >>> f"{rates.set_index('key')['rate']['starttls_2015']:.0%} of reachable MX hosts in 2015"
    '82% of reachable MX hosts in 2015'
    """
    if (sample := SAMPLES.get(name)) is None:
        width = max(map(len, SAMPLES))
        listed = "\n".join(f"  {known.name:<{width}}  {known.what}" for known in SAMPLES.values())
        raise ValueError(f"no sample {name!r}; there are\n{listed}")
    return sample.read(sample.location)
