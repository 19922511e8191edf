"""Which files are read, in which order, unpacked by what, and what becomes of damaged ones."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from rtls_analysis.read.log_files import Intake, LogFile, find_log_files, group_sets, open_log


def _zstd(data: bytes) -> bytes:
    out = pa.BufferOutputStream()
    with pa.CompressedOutputStream(out, "zstd") as stream:
        stream.write(data)
    return out.getvalue().to_pybytes()


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.compress,
    "xz": lzma.compress,
    "lzma": lambda data: lzma.compress(data, format=lzma.FORMAT_ALONE),
    "bz2": bz2.compress,
    "zst": _zstd,
    "plain": bytes,
}
TEXT = b"".join(b"Nov 23 16:32:10 mail postfix/smtp[7]: line %d\n" % number for number in range(5_000))


def names(paths: object) -> list[list[str]]:
    """The names of files in their sets."""
    return [[Path(file.name).name for file in files] for files in find_log_files(paths)]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("files", "sets"),
    [
        (["mail.log", "mail.log.1", "mail.log.2.gz", "mail.log.10.gz"],
         [["mail.log.10.gz", "mail.log.2.gz", "mail.log.1", "mail.log"]]),
        (["maillog", "maillog-20261101", "maillog-20261025.xz"],
         [["maillog-20261025.xz", "maillog-20261101", "maillog"]]),
        (["a.log.2026-11-01.zst", "a.log.2026-10-25.zst", "a.log"],
         [["a.log.2026-10-25.zst", "a.log.2026-11-01.zst", "a.log"]]),
        (["mainlog", "mainlog.1", "rejectlog"], [["mainlog.1", "mainlog"], ["rejectlog"]]),
        (["mail.log", "mail.log.0"], [["mail.log.0", "mail.log"]]),
    ],
)  # fmt: skip
def test_rotated_sets(files: list[str], sets: list[list[str]], tmp_path: Path) -> None:
    """Files of a rotated set are one, oldest first, however they were named; sets stay apart."""
    for name in files:
        (tmp_path / name).write_bytes(b"")
    assert sorted(names(tmp_path)) == sorted(sets)
    assert sorted(names(str(tmp_path / "m*") if files[0].startswith("m") else tmp_path)) == sorted(
        one for one in sets if one[0].startswith("m") or not files[0].startswith("m")
    )
    backwards = [tmp_path / name for name in reversed(files)]
    assert sorted(names(backwards)) == sorted(sets)


@pytest.mark.parametrize(
    ("files", "groups"),
    [
        (["mx01.log", "mx02.log", "mx10.log"], [["mx01.log"], ["mx02.log"], ["mx10.log"]]),
        (["a-20261101.log", "a-20261102.log.gz", "b-20261101.log"],
         [["a-20261101.log", "a-20261102.log.gz"], ["b-20261101.log"]]),
        (["mail.2026-11-01.log", "mail.2026-11-02.log", "mail.log"],
         [["mail.2026-11-01.log", "mail.2026-11-02.log"], ["mail.log"]]),
        (["@40000000692fa5c90a1b2c3d.s", "@40000000692fb5c90a1b2c3d.u", "current", "other"],
         [["@40000000692fa5c90a1b2c3d.s", "@40000000692fb5c90a1b2c3d.u", "current"], ["other"]]),
        (["MSGTRK2026112409-1.LOG", "MSGTRKMS2026112409-1.LOG", "mail.log", "SEND2026112409-1.LOG"],
         [["MSGTRK2026112409-1.LOG", "MSGTRKMS2026112409-1.LOG", "SEND2026112409-1.LOG"], ["mail.log"]]),
        (["tracking.csv", "protocol.csv", "mail.log.1", "mail.log"],
         [["mail.log.1", "mail.log"], ["protocol.csv", "tracking.csv"]]),
    ],
)  # fmt: skip
def test_groups(files: list[str], groups: list[list[str]], tmp_path: Path) -> None:
    """Sets that may tell of the same messages are one group; hosts are not, whatever number they have."""
    for name in files:
        head = b"\xef\xbb\xbf#Software: Microsoft Exchange Server\r\n" if name.endswith("csv") else b""
        (tmp_path / name).write_bytes(head)
    found = group_sets(find_log_files(tmp_path))
    assert sorted([Path(file.name).name for files in group for file in files] for group in found) == sorted(
        groups
    )


def test_streams_are_groups_of_their_own() -> None:
    """What two open files tell is not joined."""
    assert [len(group) for group in group_sets(find_log_files([io.BytesIO(b"a"), io.BytesIO(b"b")]))] == [
        1,
        1,
    ]


def test_pieces_that_count_upwards(tmp_path: Path) -> None:
    """Pieces as `split` makes them look like rotations; their first stamps tell the order."""
    for number in (1, 2, 3):
        (tmp_path / f"log.{number}").write_bytes(b"2026-11-2%dT10:00:00+00:00 mail a: b\n" % number)
    assert names(tmp_path) == [["log.1", "log.2", "log.3"]]
    for number in (1, 2, 3):
        (tmp_path / f"log.{number}").write_bytes(b"Nov %2d 10:00:00 mail a: b\n" % (10 - number))
    assert names(tmp_path) == [["log.3", "log.2", "log.1"]]
    (tmp_path / "log.1").write_bytes(
        b"Jan  1 10:00:00 mail a: b\n"
    )  # New Year lies between: the names decide
    (tmp_path / "log.2").write_bytes(b"Dec  2 10:00:00 mail a: b\n")
    assert names([tmp_path / "log.1", tmp_path / "log.2"]) == [["log.2", "log.1"]]


def test_named_twice(tmp_path: Path) -> None:
    """A file that is named twice, or through a link, is read once."""
    (tmp_path / "mail.log").write_bytes(b"")
    (tmp_path / "link.log").symlink_to(tmp_path / "mail.log")
    assert names([tmp_path / "mail.log", str(tmp_path / "mail.log"), tmp_path / "link.log"]) == [["mail.log"]]


def test_nothing_there(tmp_path: Path) -> None:
    """A path or glob that finds nothing is the caller's error, and the message says what would do."""
    with pytest.raises(FileNotFoundError, match="give a file, a folder that files lie in, a glob"):
        find_log_files(tmp_path / "none")
    with pytest.raises(FileNotFoundError):
        find_log_files(str(tmp_path / "*.log"))


def test_a_folder_of_folders(tmp_path: Path) -> None:
    """What lies deeper is not meant; a folder with nothing else is the caller's error too, wherever it is."""
    memory = pytest.importorskip("fsspec").filesystem("memory")
    memory.pipe_file("/deep/host1/mail.log", b"")
    (tmp_path / "host1").mkdir()
    (tmp_path / "host1" / "mail.log").write_bytes(b"")
    for folder in (str(tmp_path), "memory://deep"):
        for text in (folder, f"{folder}/*"):
            with pytest.raises(FileNotFoundError, match="a folder that files lie in"):
                find_log_files(text)
        assert names([f"{folder}/*/mail.log"]) == [["mail.log"]]
    (tmp_path / "empty").mkdir()
    assert find_log_files(tmp_path / "empty") == []  # nothing was logged yet


@pytest.mark.parametrize("kind", PACKERS)
def test_unpacked_by_the_first_bytes(kind: str, tmp_path: Path) -> None:
    """A file is unpacked by what it is, not by its name; from a stream that cannot look ahead as well."""
    path = tmp_path / "mail.log"
    path.write_bytes(PACKERS[kind](TEXT))
    with open_log(LogFile("mail.log", path)) as opened:
        assert opened.read(len(TEXT) + 1) == TEXT
    with open_log(LogFile("stream", stream=io.BytesIO(path.read_bytes()))) as opened:
        assert opened.read(1_000) + opened.read(len(TEXT)) == TEXT


@pytest.mark.parametrize("kind", ["gz", "xz", "bz2", "zst"])
def test_several_packed_files_in_one(kind: str) -> None:
    """Packed files that were appended to each other are read as one."""
    data = PACKERS[kind](TEXT) + PACKERS[kind](b"more\n")
    with open_log(LogFile("stream", stream=io.BytesIO(data))) as opened:
        assert opened.read(2 * len(TEXT)) == TEXT + b"more\n"


@pytest.mark.parametrize("kind", ["gz", "xz", "bz2", "zst"])
def test_cut_short(kind: str) -> None:
    """A packed file that breaks off gives what can be had, then says why there is no more."""
    noise = os.urandom(1_200_000).hex().encode()
    data = PACKERS[kind](noise)
    got = b""
    with open_log(LogFile("stream", stream=io.BytesIO(data[: len(data) * 2 // 3]))) as opened:
        try:
            while more := opened.read(50_000):
                got += more
        except (OSError, EOFError, ValueError) as error:
            Intake().problem(LogFile("stream"), error)
    assert noise.startswith(got)
    assert len(got) > len(noise) // 5


def test_a_bomb_is_given_up(tmp_path: Path) -> None:
    """A file that unpacks to far more than any log does is not read to its end."""
    path = tmp_path / "bomb.gz"
    piece = gzip.compress(bytes(64 << 20), 9)
    path.write_bytes(piece * 40)
    with open_log(LogFile("bomb", path)) as opened, pytest.raises(ValueError, match="times its size"):  # noqa: PT012
        total = 0
        while data := opened.read(16 << 20):
            total += len(data)
            assert total < 2 << 30


def test_a_pipe(tmp_path: Path) -> None:
    """A named pipe is read once, from the beginning."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_bytes(TEXT))
    writer.start()
    (files,) = find_log_files(pipe)
    with open_log(files[0]) as opened:
        assert opened.read(len(TEXT) + 1) == TEXT
    writer.join()
    assert files[0].stream is not None
    files[0].stream.close()
