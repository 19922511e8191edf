"""Rows of logs to Arrow tables, column by column.

It goes in two steps. `rows_table` needs the rows alone; where a row stands is one number, and a TLS level that hangs
on the habits of a program is left open. `finish_table` knows all lines up to there: it names file and line, and
closes such levels.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from rtls_analysis.outcomes import TlsLevel
from rtls_analysis.read.log_rows import NO_RELAY, Connection, Delivery, Relay, Service, domain_of, readable
from rtls_analysis.schema import CONNECTIONS, DELIVERIES, Table

if TYPE_CHECKING:
    import pyarrow as pa

WIDTHS = {DELIVERIES.name: len(Delivery._fields), CONNECTIONS.name: len(Connection._fields)}
TEXT_PLACES = {
    DELIVERIES.name: Delivery._fields.index("text"),
    CONNECTIONS.name: Connection._fields.index("text"),
}

_RELAY = re.compile(rb"([^\[]*)\[(?:IPv6:)?([^\]]*)\](?::(\d{1,5}))?").fullmatch


@lru_cache(maxsize=20_000)
def relay_of(text: bytes) -> Relay:
    """A next hop as ``host[address]:port``; ``none`` is none, and ``host[/socket]`` has no address.

    >>> relay_of(b"mx.example.org[192.0.2.1]:25").port
    25
    """
    match = _RELAY(text)
    if match is None:
        return NO_RELAY if text == b"none" else Relay(text)
    host, address, port = match.groups()
    return Relay(host) if address.startswith(b"/") else Relay(host, address, int(port) if port else None)


class Places:
    """From a line's place in the whole input back to its file and number."""

    def __init__(self) -> None:
        self._first: list[int] = []
        self._names: list[str] = []
        self._offsets: list[int] = []

    def add(self, number: int, name: str, line_number: int) -> None:
        """The line at place `number` is `line_number` of this file, and so on from there."""
        if self._names and self._names[-1] == name and self._offsets[-1] == line_number - number:
            return
        self._first.append(number)
        self._names.append(name)
        self._offsets.append(line_number - number)

    def columns(self, numbers: Any) -> tuple[pa.Array, pa.Array]:
        """`source_file` and `line_number` of these places, a numpy array."""
        import numpy as np
        import pyarrow as pa

        where = np.searchsorted(np.asarray(self._first, dtype=np.int64), numbers, side="right") - 1
        names = pa.array(self._names, pa.string()).take(pa.array(where))
        return names, pa.array(numbers + np.asarray(self._offsets, dtype=np.int64)[where], pa.int64())


class Services:
    """The programs on whose habits TLS levels hang, numbered as they are met."""

    def __init__(self) -> None:
        self.met: list[Service] = []
        self._index: dict[Service, int] = {}

    def index(self, service: Service) -> int:
        """The number of a program."""
        index = self._index.setdefault(service, len(self.met))
        if index == len(self.met):
            self.met.append(service)
        return index


def rows_table(table: Table, rows: list[Any], services: Services) -> pa.Table:
    """Rows, laid out flat, as a table with `number` and `service` in place of `source_file` and `line_number`."""
    import pyarrow as pa

    fields = Delivery._fields if table is DELIVERIES else Connection._fields
    row = {name: rows[place :: len(fields)] for place, name in enumerate(fields)}
    columns = {
        "number": pa.array(row["number"], pa.int64()),
        "logged_at": pa.array(row["at"], pa.int64()).cast(pa.timestamp("us", "UTC")),
        "queue_id": _texts(row["queue_id"]),
        **_origin_columns(row["origin"]),
        **_relay_columns(row["relay"]),
        **_tls_columns(row["tls"], services),
    }
    if table is DELIVERIES:
        columns |= _delivery_columns(row)
    else:
        columns |= {
            "process_id": _texts(row["process_id"]),
            "reused": pa.array(row["reused"], pa.bool_()),
            "tls_outcome": _words(row["outcome"]),
            "text": _texts(row["text"]),
        }
    return pa.table(columns)


def finish_table(table: Table, part: pa.Table, places: Places, services: Services) -> pa.Table:
    """A part of `rows_table` as it is handed out, with the columns of the schema.

    Notes
    -----
    A program that wrote a TLS line anywhere up to the last row of the part is one that does: of its sessions, those
    without such a line were in cleartext.
    """
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    numbers = part["number"].to_numpy()
    files, lines = places.columns(numbers)
    until = int(np.max(numbers, initial=0))
    telling = [
        index
        for index, service in enumerate(services.met)
        if service.first_tls is not None and service.first_tls <= until
    ]
    untold = pc.is_in(part["service"], value_set=pa.array(telling, pa.int32()))
    level = pc.if_else(untold, str(TlsLevel.NONE), part["tls_level"])
    known = {"source_file": files, "line_number": lines, "tls_level": level}
    schema = table.arrow_schema
    return pa.Table.from_arrays(
        [known[name] if name in known else part[name] for name in schema.names], schema=schema
    )


# -- columns --------------------------------------------------------------------------------------------------


def _delivery_columns(row: dict[str, list[Any]]) -> dict[str, pa.Array]:
    import pyarrow as pa

    results, codes = _shared(row["result"])
    sender, recipient = _texts(row["sender"]), _texts(row["recipient"])
    return {
        "message_id": _texts(row["message_id"]),
        "sender": sender,
        "recipient": recipient,
        "sender_domain": _domains(sender),
        "recipient_domain": _domains(recipient),
        "transport": _texts(row["transport"]),
        "attempted": pa.array([one.attempted for one in results], pa.bool_()).take(codes),
        "action": _words(one.action for one in results).take(codes),
        "status_word": _texts([one.status_word for one in results]).take(codes),
        "enhanced_code": _texts([one.enhanced_code for one in results]).take(codes),
        "reply_code": pa.array([one.reply_code for one in results], pa.int64()).take(codes),
        "tls_outcome": _words(one.outcome for one in results).take(codes),
        "reply_text": _texts(row["text"]),
        "delay_seconds": pa.array(row["delay"], pa.float64()),
    }


def _origin_columns(values: Sequence[Any]) -> dict[str, pa.Array]:
    distinct, codes = _shared(values)
    return {
        "mta": _words(origin.mta for origin in distinct).take(codes),
        "reporting_host": _texts([_host_name(origin.host) for origin in distinct]).take(codes),
    }


def _relay_columns(values: Sequence[Any]) -> dict[str, pa.Array]:
    import pyarrow as pa

    try:  # as Postfix's reader gives them
        encoded = pa.array(values, pa.binary()).dictionary_encode()
        relays, codes = list(map(relay_of, encoded.dictionary.to_pylist())), encoded.indices
    except (TypeError, pa.ArrowInvalid):
        distinct, codes = _shared(values)
        relays = [relay if isinstance(relay, Relay) else relay_of(relay) for relay in distinct]
    return {
        "relay_host": _texts([_host_name(relay.host) for relay in relays]).take(codes),
        "relay_address": _texts([relay.address for relay in relays]).take(codes),
        "relay_port": pa.array([relay.port for relay in relays], pa.int64()).take(codes),
    }


def _tls_columns(values: Sequence[Any], services: Services) -> dict[str, pa.Array]:
    import pyarrow as pa

    distinct, codes = _shared(values)
    plain = {
        "service": pa.array(
            [None if tls.service is None else services.index(tls.service) for tls in distinct], pa.int32()
        ),
        "tls_policy": _texts([tls.policy for tls in distinct]),
        "tls_level": _words(tls.level for tls in distinct),
        "tls_version": _words(tls.version for tls in distinct),
        "cipher": _texts([tls.cipher for tls in distinct]),
        "cipher_bits": pa.array([tls.bits for tls in distinct], pa.int64()),
        "requiretls": _words(tls.requiretls for tls in distinct),
        "requiretls_violated": pa.array([tls.violated for tls in distinct], pa.bool_()),
        "requiretls_strict": _words(tls.strict for tls in distinct),
        "tls_required_no": _words(tls.required_no for tls in distinct),
    }
    return {name: column.take(codes) for name, column in plain.items()}


def _texts(values: Sequence[bytes | None]) -> pa.Array:
    import pyarrow as pa

    try:
        return pa.array(values, pa.binary()).cast(pa.string())
    except pa.ArrowInvalid:  # some of it is no UTF-8
        return pa.array([None if value is None else readable(value) for value in values], pa.string())


def _words(values: Iterable[Any]) -> pa.Array:
    import pyarrow as pa

    return pa.array([None if value is None else str(value) for value in values], pa.string())


def _shared(values: Sequence[Any]) -> tuple[list[Any], pa.Array]:
    """The distinct values of a column, and for each row the index of its own."""
    import numpy as np
    import pyarrow as pa

    distinct = list(dict.fromkeys(values))
    if len(distinct) == 1:
        return distinct, pa.array(np.zeros(len(values), dtype=np.int32))
    index = {value: place for place, value in enumerate(distinct)}
    return distinct, pa.array(np.fromiter(map(index.__getitem__, values), dtype=np.int32, count=len(values)))


def _host_name(host: bytes | None) -> bytes | None:
    return host.lower().rstrip(b".") or None if host is not None else None


def _domains(addresses: pa.Array) -> pa.Array:
    """The domains of a column of addresses."""
    import pyarrow.compute as pc

    # Whatever has no @ has an empty domain this way, which is none.
    whole = pc.if_else(pc.match_substring(addresses, "@"), addresses, "@")
    tails = pc.list_element(pc.split_pattern(whole, "@", max_splits=1, reverse=True), 1).dictionary_encode()
    domains = [domain_of(b"@" + tail.encode("utf-8", "replace")) for tail in tails.dictionary.to_pylist()]
    return _texts(domains).take(tails.indices)
