"""Messages come out of every way in which mail lies on disk, whole, in order, and in bounded memory."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtls_analysis.read import mail_files
from rtls_analysis.read.mail_files import MailFiles

ONE = b"Subject: one\n\nFrom here on: text\n"
TWO = b"Subject: two\n\nFrom 10:00 to 12:00 of 2026 we rest\nand sleep\n"
FROM = b"From MAILER-DAEMON Mon Nov 23 16:32:12 2026\n"
UUCP = b">From x Mon Nov 23\n"
MBOX = FROM + ONE + b"\n" + FROM + TWO


def zstd(data: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(data)
    return sink.getvalue().to_pybytes()


def zipped(data: bytes, name: str = "inner") -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, data)
    return out.getvalue()


def tarred(*members: tuple[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def read(path: Path | list[Path], **options: int) -> tuple[list[tuple[str, bytes]], dict[str, str]]:
    files = MailFiles(path, **options)
    return list(files), files.problems


MBOXES = [
    ("two messages with an empty line between", MBOX, [ONE, TWO]),
    ("ends of lines as in DOS", MBOX.replace(b"\n", b"\r\n"), [m.replace(b"\n", b"\r\n") for m in (ONE, TWO)]),
    ("ends of lines as on old Macs", MBOX.replace(b"\n", b"\r"), [m.replace(b"\n", b"\r") for m in (ONE, TWO)]),
    ("no empty line between", FROM + ONE + FROM + TWO, [ONE[:-1], TWO]),
    ("empty lines and a byte order mark first", b"\xef\xbb\xbf\n\n" + MBOX, [ONE, TWO]),
    ("Thunderbird's dash", MBOX.replace(b"MAILER-DAEMON", b"-"), [ONE, TWO]),
    ("Gmail's own form of the time", MBOX.replace(FROM, b"From 17@xxx Mon Nov 23 16:32:12 +0000 2026\n"), [ONE, TWO]),
    ("quoted local part and a zone", MBOX.replace(FROM, b'From "a b"@x.test Mon Nov 23 16:32 CET 2026\n'), [ONE, TWO]),
    ("UUCP's >From below", MBOX.replace(FROM, FROM + UUCP), [UUCP + ONE, UUCP + TWO]),
    ("escaped lines stay", MBOX.replace(b"From here", b">From here"), [ONE.replace(b"From here", b">From here"), TWO]),
    ("a separator without a field below is text", FROM + ONE + FROM + b"\nsaid\n", [ONE + FROM + b"\nsaid\n"]),
    ("last line without an end", MBOX[:-1], [ONE, TWO[:-1]]),
]  # fmt: skip


@pytest.mark.parametrize(("data", "messages"), [pytest.param(d, m, id=why) for why, d, m in MBOXES])
def test_mbox(tmp_path: Path, data: bytes, messages: list[bytes]) -> None:
    """An mbox is cut at its separators only, and its messages are numbered where there is more than one."""
    path = tmp_path / "mbox"
    path.write_bytes(data)
    found, problems = read(path)
    assert [message.rstrip(b"\r\n") for _, message in found] == [m.rstrip(b"\r\n") for m in messages]
    names = [f"{path}#{n}" for n in range(1, len(messages) + 1)] if len(messages) > 1 else [str(path)]
    assert [name for name, _ in found] == names
    assert not problems


PACKED: list[tuple[str, Callable[[bytes], bytes]]] = [
    ("gzip", gzip.compress),
    ("gzip in two members", lambda data: gzip.compress(data[:50]) + gzip.compress(data[50:])),
    ("xz", lzma.compress),
    ("lzma", lambda data: lzma.compress(data, format=lzma.FORMAT_ALONE)),
    ("bzip2", bz2.compress),
    ("zstd", zstd),
    ("zip", zipped),
    ("tar", lambda data: tarred(("inner", data))),
    ("tar.gz", lambda data: gzip.compress(tarred(("inner", data)))),
    ("zip in zip", lambda data: zipped(zipped(data))),
    ("gzip in zip", lambda data: zipped(gzip.compress(data))),
    ("a long name in a tar", lambda data: tarred(("long/" * 60 + "inner", data))),
]


@pytest.mark.parametrize("pack", [pytest.param(pack, id=why) for why, pack in PACKED])
def test_packed(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    """How a file is packed is told by its bytes, not by its name."""
    path = tmp_path / "archive.bin"
    path.write_bytes(pack(MBOX))
    found, problems = read(path)
    assert [message for _, message in found] == [ONE, TWO]
    assert all(name.startswith(str(path)) for name, _ in found)
    assert not problems


def test_folders(tmp_path: Path) -> None:
    """A folder is read with all below it, in the order of names; a Maildir's unfinished and control files are not."""
    for name, data in {
        "a/mbox": MBOX,
        "b/cur/1:2,S": ONE,
        "b/new/2": MBOX,  # one message, whatever its first line is
        "b/tmp/3": b"half a mess",
        "b/dovecot-uidlist": b"3 V1",
        "b/.Sent/cur/4": ONE,
        ".hidden/5": ONE,
        "c.eml.gz": gzip.compress(TWO),
        "d.eml": MBOX,
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)
    found, problems = read(tmp_path)
    names = [name.removeprefix(f"{tmp_path}/") for name, _ in found]
    assert names == ["c.eml.gz", "d.eml", "a/mbox#1", "a/mbox#2", "b/.Sent/cur/4", "b/cur/1:2,S", "b/new/2"]
    assert dict(zip(names, (message for _, message in found), strict=True))["d.eml"] == MBOX[len(FROM) :]
    assert not problems


def test_given_one_by_one(tmp_path: Path) -> None:
    """Paths, globs and open files may be mixed; a path to nothing is the caller's error."""
    one, two = tmp_path / "one.eml", tmp_path / "two.eml"
    one.write_bytes(ONE)
    two.write_bytes(TWO)
    files = MailFiles([one, str(tmp_path / "t*.eml"), io.BytesIO(ONE)])
    assert files.bytes_total is None
    assert [message for _, message in files] == [ONE, TWO, ONE]
    files = MailFiles([one, two])
    assert len(list(files)) == 2
    assert files.bytes_total == files.bytes_read == len(ONE) + len(TWO)
    with pytest.raises(FileNotFoundError, match="no mail at"):
        MailFiles(tmp_path / "three.eml")


DAMAGED = [
    ("gzip cut off", gzip.compress(MBOX * 2000)[:-500], "EOFError"),
    ("gzip with a wrong sum", gzip.compress(MBOX)[:-8] + b"\0" * 8, "BadGzipFile"),
    ("xz cut off", lzma.compress(MBOX * 2000)[:-40], "EOFError"),
    ("zip cut off", zipped(MBOX)[:-30], "BadZipFile"),
    ("tar cut off", tarred(("one", MBOX * 100))[:4000], "EOFError"),
    ("tar with a size that is no number", tarred(("one", ONE)).replace(b"00000000041", b"z" * 11), "ValueError"),
    ("packed too many times", gzip.compress(gzip.compress(gzip.compress(gzip.compress(ONE)))), "packed more than"),
]  # fmt: skip


@pytest.mark.parametrize(("data", "reason"), [pytest.param(d, r, id=why) for why, d, r in DAMAGED])
def test_damaged(tmp_path: Path, data: bytes, reason: str) -> None:
    """What a damaged file held before the damage is kept, and the reason is told."""
    bad, good = tmp_path / "bad", tmp_path / "good.eml"
    bad.write_bytes(data)
    good.write_bytes(ONE)
    found, problems = read([bad, good])
    assert (str(good), ONE) in found
    assert any(reason in problem for problem in problems.values())


def test_damage_keeps_what_came_before(tmp_path: Path) -> None:
    path = tmp_path / "mbox.gz"
    path.write_bytes(gzip.compress(b"".join(FROM + b"Subject: %d\n\n" % n for n in range(20_000)))[:-100])
    found, problems = read(path)
    assert len(found) > 10_000
    assert list(problems) == [str(path)]


def test_limit(tmp_path: Path) -> None:
    """A message that is too long is cut, in an mbox too, and the next one is found again."""
    long = b"Subject: long\n\n" + b"x" * 100_000 + b"\n"
    path = tmp_path / "mbox"
    path.write_bytes(FROM + long + b"\n" + FROM + TWO)
    found, problems = read(path, limit=1000)
    assert [message for _, message in found] == [long[:1000], TWO]
    assert problems == {f"{path}#1": "cut at 1,000 bytes"}


@pytest.mark.parametrize("form", ["gzip", "zip", "tar.gz"])
def test_bombs(tmp_path: Path, form: str) -> None:
    """A bomb costs no more memory than one message may have."""
    path = tmp_path / "bomb"
    nothing = b"\0" * (200 << 20)
    pack = {"gzip": gzip.compress, "zip": zipped, "tar.gz": lambda data: gzip.compress(tarred(("x", data)))}
    path.write_bytes(pack[form](nothing))  # type: ignore[operator]
    del nothing
    tracemalloc.start()
    found, problems = read(path, limit=1 << 20)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [len(message) for _, message in found] == [1 << 20]
    assert "cut at" in " ".join(problems.values())
    assert peak < 16 << 20


def test_message_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An mbox whose message does not end is given up after a while."""
    monkeypatch.setattr(mail_files, "MAX_SKIPPED_BYTES", 4 << 20)
    path = tmp_path / "mbox"
    path.write_bytes(gzip.compress(MBOX + b"x" * (64 << 20)))
    found, problems = read(path, limit=1 << 20)
    assert found[0] == (f"{path}#1", ONE)
    assert problems[f"{path}#2"] == "a message without end"


@settings(max_examples=150, deadline=None)
@given(
    bodies=st.lists(st.lists(st.sampled_from([b"", b"text", b">From x", b"From me", b"x: y"]), max_size=6), min_size=1),
    newline=st.sampled_from([b"\n", b"\r\n"]),
    block=st.integers(1030, 1200),
)  # fmt: skip
def test_blocks_do_not_matter(
    tmp_path_factory: pytest.TempPathFactory, bodies: list[list[bytes]], newline: bytes, block: int
) -> None:
    """The same messages come out, wherever the blocks of a file end."""
    messages = [newline.join([b"Subject: x", b"", *body, b""]) for body in bodies]
    data = b"".join(FROM.replace(b"\n", newline) + message + newline for message in messages)
    path = tmp_path_factory.mktemp("mbox") / "mbox"
    path.write_bytes(data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mail_files, "BLOCK_BYTES", block)
        found, problems = read(path)
    assert [message.rstrip(b"\r\n") for _, message in found] == [m.rstrip(b"\r\n") for m in messages]
    assert not problems


BEGINS = [b"", b"\x1f\x8b\x08", b"\xfd7zXZ\0", b"BZh91AY&SY", b"\x28\xb5\x2f\xfd", b"PK\x03\x04", FROM]


@settings(max_examples=200, deadline=None)
@given(data=st.binary(max_size=300), start=st.sampled_from(BEGINS))
def test_any_bytes(data: bytes, start: bytes) -> None:
    """No file, whatever is in it, stops the run."""
    for whole in (start + data, start + b"\0" * 257 + b"ustar\0" + data):
        files = MailFiles(io.BytesIO(whole))
        assert all(isinstance(message, bytes) for _, message in files)
