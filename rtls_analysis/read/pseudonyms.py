"""Pseudonyms for people, and on request for domains, in tables that are to be shared.

The same address gives the same pseudonym wherever it stands and in whichever file, as long as the key is the same:
tables can still be joined, also those of different senders' logs. Without the key, a pseudonym cannot be found by
trying addresses.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
from collections.abc import Callable, Iterable
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rtls_analysis.read.log_rows import domain_of

if TYPE_CHECKING:
    import pyarrow as pa

MIN_KEY_BYTES = 16

_ADDRESSES = ("sender", "recipient", "original_recipient", "final_recipient")
_DOMAINS = ("sender_domain", "recipient_domain", "reporting_host", "reporting_mta", "remote_mta")
_RELAYS = ("relay_host",)
_HOST_ADDRESSES = ("relay_address",)
_MESSAGE_IDS = ("message_id", "original_message_id", "original_envelope_id")
_TEXTS = ("reply_text", "text", "diagnostic")

# In a text: what is left of an @ up to a character that no address has unquoted, and a domain or address literal.
_ADDRESS = re.compile(
    r"""(?:"(?:[^"\\\r\n]|\\.){1,320}"|[^\s<>()\[\]",:;@\\]{1,320})@"""
    r"""(?:\[[0-9A-Fa-f:.v]{2,60}\]|[\w\u0080-\U0010ffff-]{1,63}(?:\.[\w\u0080-\U0010ffff-]{1,63})*)"""
)
_HOST = re.compile(
    r"(?<![\w@.-])(?:[\w\u0080-\U0010ffff-]{1,63}\.)+[A-Za-z\u0080-\U0010ffff][\w\u0080-\U0010ffff-]{1,62}(?![\w-])"
)
_IP = re.compile(
    r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?!\w|\.\d)"
    r"|(?<![\w.:])(?:(?:[0-9A-Fa-f]{1,4}:){7}[0-9A-Fa-f]{1,4}"
    r"|(?:[0-9A-Fa-f]{1,4}(?::[0-9A-Fa-f]{1,4}){0,6})?::(?:[0-9A-Fa-f]{1,4}(?::[0-9A-Fa-f]{1,4}){0,6})?)(?![\w:])"
)


class Pseudonyms:
    """Keyed pseudonyms: `u…` for a local part, `d….invalid` for a domain or host name, `a…` for a host's address.

    Parameters
    ----------
    key
        A secret of 16 bytes or more; who has it can tell which pseudonym stands for a known address.
    domains_too
        Whether domains, host names and addresses of hosts are replaced as well.

    Raises
    ------
    ValueError
        The key is too short to keep anything secret.

    Examples
    --------
    >>> names = Pseudonyms(b"a secret of 16 bytes or more")
    >>> names.address("Ann@Example.org") == names.address("ann@example.org")
    True
    >>> names.address("ann@example.org").partition("@")[2]
    'example.org'
    """

    def __init__(self, key: bytes, *, domains_too: bool = False) -> None:
        if len(key) < MIN_KEY_BYTES:
            raise ValueError(
                f"a key of {len(key)} bytes keeps no secret: put {MIN_KEY_BYTES} random ones or more into the file"
            )
        self._key = hashlib.blake2b(key).digest()
        self.domains_too = domains_too
        self._known: Callable[[str, str], str] = lru_cache(maxsize=100_000)(self._digest)

    def __getstate__(self) -> dict[str, Any]:
        return {"_key": self._key, "domains_too": self.domains_too}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._known = lru_cache(maxsize=100_000)(self._digest)

    def _digest(self, kind: str, value: str) -> str:
        data = value.encode("utf-8", "surrogatepass")
        digest = hashlib.blake2b(data, key=self._key, digest_size=10, person=kind.encode()).digest()
        return base64.b32encode(digest).decode().lower()

    def address(self, address: str) -> str:
        """Replace the local part of a mail address, and the domain where asked; the null sender stays empty.

        Notes
        -----
        The pseudonym is that of the whole address without case: `info` at two domains gives two.
        """
        local, at, domain = address.rpartition("@")
        if not at:
            return self._local(address, "") if address else ""
        return self._local(local, domain) + at + (self.domain(domain) if self.domains_too else domain.lower())

    def _local(self, local: str, domain: str) -> str:
        return "u" + self._known("local part", f"{local.strip(chr(34)).lower()}@{_plain(domain)}")

    def domain(self, name: str) -> str:
        """Replace a domain or host name, without case."""
        return (
            name
            if not name or name.endswith(".invalid")
            else f"d{self._known('domain', _plain(name))}.invalid"
        )

    def _relay(self, name: str) -> str:
        return self.domain(name) if "." in name else name  # a local agent, as Postfix's "virtual"

    def host_address(self, address: str) -> str:
        """Replace the address of a host."""
        return "a" + self._known("address", address.lower())

    def text(self, text: str, people: Iterable[str] = ()) -> str:
        """Replace addresses in a text; of `people`, addresses too, local parts that stand alone as well."""
        text = _ADDRESS.sub(lambda match: self.address(match[0]), text)
        for person in people:
            local, _at, domain = person.rpartition("@")
            for form in dict.fromkeys((local, local.partition("+")[0])):
                if len(form) > 1 and form.lower() in text.lower():
                    alone = re.compile(rf"(?<![\w@.+-]){re.escape(form)}(?![\w@+-])", re.IGNORECASE)
                    text = alone.sub(self._local(form, domain), text)
        if self.domains_too:
            text = _HOST.sub(lambda match: self.domain(match[0]), text)
            text = _IP.sub(lambda match: self.host_address(match[0]), text)
        return text

    def apply(self, part: pa.Table) -> pa.Table:
        """Replace what a table tells of people, by the names of its columns."""
        part = self._texts(part)  # while the other columns still say whom the texts are about
        kinds: list[tuple[tuple[str, ...], Callable[[str], str]]] = [
            (_ADDRESSES + _MESSAGE_IDS, self.address)
        ]
        if self.domains_too:
            kinds += [(_DOMAINS, self.domain), (_RELAYS, self._relay), (_HOST_ADDRESSES, self.host_address)]
        for names, replace in kinds:
            for name in names:
                if name in part.column_names:
                    part = _replaced(part, name, replace)
        return part

    def _texts(self, part: pa.Table) -> pa.Table:
        people = [part[name].to_pylist() for name in _ADDRESSES if name in part.column_names]
        rows = list(zip(*people, strict=True)) or [()] * part.num_rows
        for name in _TEXTS:
            if name in part.column_names:
                texts = zip(part[name].to_pylist(), rows, strict=True)
                replaced = [
                    None if text is None else self.text(text, filter(None, row)) for text, row in texts
                ]
                part = _with(part, name, replaced)
        return part


def read_pseudonyms(path: str | os.PathLike[str], *, domains_too: bool = False) -> Pseudonyms:
    """Pseudonyms with the key in a file.

    Raises
    ------
    OSError
        There is no such file.
    ValueError
        It holds too few bytes.
    """
    return Pseudonyms(Path(path).read_bytes().strip(), domains_too=domains_too)


@lru_cache(maxsize=20_000)
def _plain(domain: str) -> str:
    """A domain as our tables write it."""
    return (domain_of(b"@" + domain.encode("utf-8", "backslashreplace")) or b"").decode(
        "utf-8", "backslashreplace"
    )


def _replaced(part: pa.Table, name: str, replace: Callable[[str], str]) -> pa.Table:
    """The table with each distinct value of a column replaced."""
    import pyarrow as pa

    encoded = part[name].combine_chunks().dictionary_encode()
    distinct = [replace(value) for value in encoded.dictionary.to_pylist()]
    return _with(part, name, pa.array(distinct, pa.string()).take(encoded.indices))


def _with(part: pa.Table, name: str, values: Any) -> pa.Table:
    import pyarrow as pa

    array = values if isinstance(values, pa.Array) else pa.array(values, pa.string())
    return part.set_column(part.column_names.index(name), name, array)
