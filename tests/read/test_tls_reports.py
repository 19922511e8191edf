from __future__ import annotations

import base64
import csv
import gzip
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtls_analysis.outcomes import TlsOutcome
from rtls_analysis.read.tls_reports import find_reports, outcome_of, read_tls_reports, tls_reports_summary
from rtls_analysis.schema import TLS_REPORTS
from rtls_analysis.standards.tls_report import MAX_BYTES

SHARED = Path(__file__).parents[3] / "shared" / "data" / "tlsrpt"


def report(report_id: str = "r1", *policies: dict[str, Any], **changes: Any) -> bytes:
    value = {
        "organization-name": "Example Inc.",
        "date-range": {"start-datetime": "2026-08-03T00:00:00Z", "end-datetime": "2026-08-03T23:59:59Z"},
        "contact-info": "tls@example.net",
        "report-id": report_id,
        "policies": list(policies) or [policy()],
    }
    return json.dumps(value | {name.replace("_", "-"): changed for name, changed in changes.items()}).encode()


def policy(
    domain: str = "example.org", kind: str = "sts", ok: int = 8, failed: int = 0, **types: int
) -> dict[str, Any]:
    return {
        "policy": {"policy-type": kind, "policy-domain": domain, "mx-host": [f"*.{domain}"]},
        "summary": {"total-successful-session-count": ok, "total-failure-session-count": failed},
        "failure-details": [
            {"result-type": name.replace("_", "-"), "failed-session-count": count}
            for name, count in types.items()
        ],
    }


def mail(
    payload: bytes, fields: str = "Content-Type: application/tlsrpt+gzip", *, encoded: bool = True
) -> bytes:
    """A report mail: what stands in `fields` describes its second part."""
    if encoded:
        fields += "\r\nContent-Transfer-Encoding: base64"
        payload = base64.encodebytes(payload).replace(b"\n", b"\r\n")
    return b"\r\n".join(
        (
            b"From: tls@example.net",
            b"Subject: Report Domain: example.org Submitter: example.net Report-ID: <r1@example.net>",
            b'Content-Type: multipart/report; report-type="tlsrpt"; boundary="=x"',
            b"",
            b"--=x",
            b"Content-Type: text/plain",
            b"",
            b"This is a report.",
            b"--=x",
            fields.encode(),
            b"",
            payload,
            b"--=x--",
            b"",
        )
    )


def zipped(*members: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for number, member in enumerate(members):
            archive.writestr(f"r{number}.json", member)
    return file.getvalue()


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., pd.DataFrame]:
    """A function that reads bytes, each as a file of its own, in this order."""

    def read_files(*data: bytes) -> pd.DataFrame:
        for number, one in enumerate(data):
            (tmp_path / f"{number:03}.json").write_bytes(one)
        return read_tls_reports(tmp_path, progress=False)

    return read_files


PLAIN, PACKED = report(), gzip.compress(report())
UNDECLARED = base64.encodebytes(PACKED)
CONTAINERS = [
    ("JSON", PLAIN),
    ("gzip", PACKED),
    ("gzip in gzip", gzip.compress(PACKED)),
    ("gzip with bytes behind", PACKED + b"\0\0trailing"),
    ("gzip of two members", gzip.compress(PLAIN[:99]) + gzip.compress(PLAIN[99:])),
    ("zip", zipped(PLAIN)),
    ("zip with something else in it", zipped(b"\0\5\x16\7", PLAIN)),
    ("zip in gzip", gzip.compress(zipped(PLAIN))),
    ("the mail of the RFC", mail(PACKED)),
    ("JSON in that mail", mail(PLAIN, "Content-Type: application/tlsrpt+json", encoded=False)),
    ("an attachment of gzip", mail(PACKED, "Content-Type: application/gzip")),
    ("an attachment of anything", mail(PACKED, "Content-Type: application/octet-stream")),
    ("an attachment of text", mail(PLAIN, 'Content-Type: text/plain; name="r.json"', encoded=False)),
    ("a zip attachment", mail(zipped(PLAIN), "Content-Type: application/zip")),
    ("packed twice", mail(gzip.compress(PACKED))),
    ("base64 that is not declared", mail(UNDECLARED, "Content-Type: application/tlsrpt+gzip", encoded=False)),
    ("base64 without its end", mail(UNDECLARED.rstrip(b"=\n"), encoded=False)),
    ("8 bits as they are", mail(PACKED, "Content-Type: application/tlsrpt+gzip", encoded=False)),
    (
        "quoted-printable",
        mail(
            PLAIN.replace(b"=", b"=3D").replace(b"example", b"ex=61mple"),
            "Content-Type: application/tlsrpt+json\r\nContent-Transfer-Encoding: quoted-printable",
            encoded=False,
        ),
    ),
    (
        "a forwarded mail",
        mail(mail(PACKED), "Content-Type: message/rfc822", encoded=False).replace(b"=x", b"=y", 3),
    ),
    ("no parts", b"From: a@b\r\nContent-Type: application/tlsrpt+json\r\n\r\n" + PLAIN),
    ("no parts, packed", b"From: a@b\r\nContent-Transfer-Encoding: base64\r\n\r\n" + UNDECLARED),
    ("an mbox", b"From MAILER-DAEMON Mon Aug  3 00:00:00 2026\n" + mail(PACKED).replace(b"\r\n", b"\n")),
]


@pytest.mark.parametrize("data", [pytest.param(data, id=why) for why, data in CONTAINERS])
def test_containers(data: bytes, tmp_path: Path) -> None:
    """A report is found in whatever it comes."""
    (tmp_path / "report").write_bytes(data)
    frame = read_tls_reports(tmp_path, progress=False)
    assert frame["report_id"].tolist() == ["r1"]
    assert frame["sessions_ok"].tolist() == [8]
    assert frame.attrs["coverage"]["messages_matched"] == 1


NOTHING = [
    ("empty", b" \n", "empty"),
    ("ordinary mail", b"From: a@example.net\nSubject: hello\n\nHello.\n", "no TLS report in it"),
    (
        "mail with other JSON",
        mail(b'{"a": 1}', 'Content-Type: text/plain; name="a.json"'),
        "JSON, but no TLS report",
    ),
    ("a report without policies", report(policies=[]), "a report without a policy"),
    ("gzip cut short", mail(PACKED[:-30]), "gzip: cut short"),
    ("gzip damaged", mail(PACKED[:60] + b"\xff" * 60), "gzip: Error"),
    ("a zip cut short", mail(zipped(PLAIN)[:-40]), "zip: "),
    ("a report part that is none", mail(b"\0\1\2"), "neither JSON nor packed"),
    (
        "packed too often",
        mail(gzip.compress(gzip.compress(gzip.compress(PACKED)))),
        "packed more than 3 times",
    ),
    ("a bomb", mail(gzip.compress(b"[" * (MAX_BYTES + 1), 1)), "unpacks to more than 50 MiB"),
    ("a bomb in a zip", mail(zipped(b"[" * (MAX_BYTES + 1))), "unpacks to more than 50 MiB"),
    ("nested too deep", mail(gzip.compress(b'{"policies":' + b"[" * 100_000)), "JSON nested too deep"),
    ("no mail", b"\x89PNG\r\n\x1a\n\0\0", "neither mail nor JSON"),
]


@pytest.mark.parametrize(("data", "reason"), [pytest.param(d, r, id=why) for why, d, r in NOTHING])
def test_what_gives_nothing_has_a_reason(data: bytes, reason: str) -> None:
    """What holds no report says why, and costs no more than a report may."""
    found = find_reports(data)
    assert found.reports == []
    assert found.problem.startswith(reason)


def test_rows(read: Callable[..., pd.DataFrame]) -> None:
    """A row stands for a failure detail, or for a policy without one; totals repeat."""
    frame = read(
        report("r1", policy(failed=3, certificate_expired=2, Testing=1), policy(kind="tlsa", ok=5)),
        report("r2", policy("example.net", failed=2)),
    )
    assert frame.columns.tolist() == TLS_REPORTS.names()
    rows = frame[
        [
            "policy_index",
            "policy_type",
            "sessions_failed",
            "result_type",
            "tls_outcome",
            "failed_sessions",
            "sums",
        ]
    ]
    assert rows.astype(object).where(rows.notna(), None).values.tolist() == [
        [0, "sts", 3, "certificate-expired", "certificate_expired", 2, "equal"],
        [0, "sts", 3, "Testing", "unknown", 1, "equal"],
        [1, "tlsa", 0, None, "ok", None, "equal"],
        [0, "sts", 2, None, "unknown", None, "no_details"],
    ]
    assert frame["policy_mx_hosts"].tolist()[0] == ["*.example.org"]
    assert str(frame["begins_at"].dt.tz) == "UTC"


def test_every_result_type_has_its_outcome() -> None:
    """The eleven result types of RFC 8460 §4.3 are outcomes of the same name."""
    types = """starttls-not-supported certificate-host-mismatch certificate-expired certificate-not-trusted
    validation-failure tlsa-invalid dnssec-invalid dane-required sts-policy-fetch-error sts-policy-invalid
    sts-webpki-invalid"""
    for word in types.split():
        assert outcome_of(word) == outcome_of(word.upper()) == word.replace("-", "_")
    assert outcome_of("sts-mx-mismatch") == outcome_of(None) == TlsOutcome.UNKNOWN


def test_what_came_before_is_left_out(read: Callable[..., pd.DataFrame]) -> None:
    """The same organisation, id, domain and period count once; anything else differing makes another report."""
    frame = read(
        report("r1"),
        mail(gzip.compress(report("r1", contact_info="other@example.net"))),
        report("R1", organization_name="EXAMPLE INC."),
        report("r1", policy(ok=9)),
        report("r2"),
        report("r1", organization_name="Another"),
        report("r1", policy("example.net")),
        report("r1", date_range={"start-datetime": "2026-08-04", "end-datetime": "2026-08-05"}),
    )
    assert frame["source_file"].str[-8:-5].tolist() == ["000", "004", "005", "006", "007"]
    coverage = frame.attrs["coverage"]
    assert (coverage["duplicates"], coverage["duplicates_that_differ"]) == (3, 1)
    assert (coverage["reports"], coverage["rows"]) == (8, 5)


def test_reports_without_an_id_are_told_apart_by_content(read: Callable[..., pd.DataFrame]) -> None:
    """Without an id the same content counts once, another content does not."""
    frame = read(
        report(report_id=None), report(report_id=None), report(report_id=None, policies=[policy(ok=9)])
    )  # type: ignore[arg-type]
    assert frame["sessions_ok"].tolist() == [8, 9]


def test_a_policy_told_twice_in_one_report_counts_twice(read: Callable[..., pd.DataFrame]) -> None:
    """Some senders write one entry for successes and one for failures of the same policy."""
    frame = read(report("r1", policy(ok=12), policy(ok=0, failed=2, certificate_host_mismatch=2)))
    assert frame.groupby("policy_index")["sessions_ok"].first().tolist() == [12, 0]
    assert frame.attrs["coverage"]["duplicates"] == 0


def test_several_reports_of_one_file_have_their_own_place(read: Callable[..., pd.DataFrame]) -> None:
    """The second report of a file is told by its number."""
    frame = read(report("r1") + b"\n" + report("r2"))
    assert [name.rpartition("000.json")[2] for name in frame["source_file"]] == ["", "#2"]


def test_what_cannot_be_is_flagged(read: Callable[..., pd.DataFrame]) -> None:
    """Negative counts and a period that runs backwards are kept, and flagged with the reason."""
    backwards = {"start-datetime": "2026-08-04T00:00:00Z", "end-datetime": "2026-08-03T00:00:00Z"}
    frame = read(report("r1", policy(ok=-1)), report("r2", date_range=backwards), report("r3"))
    assert frame["impossible"].tolist() == [True, True, False]
    assert frame["detail"].tolist()[:2] == ["a negative count", "an end before the begin"]
    assert frame["sessions_ok"].tolist() == [-1, 8, 8]


def test_coverage_and_summary(read: Callable[..., pd.DataFrame]) -> None:
    """What was read, and what of it gave nothing, stands beside the table and in the summary."""
    frame = read(
        report("r1", policy(failed=3, certificate_expired=5)), report("r1"), b"", b"From: a@b\n\nhello"
    )
    coverage = frame.attrs["coverage"]
    assert (coverage["messages_read"], coverage["messages_matched"]) == (4, 2)
    assert {reason: skipped["count"] for reason, skipped in coverage["skipped"].items()} == {
        "empty": 1,
        "no TLS report in it": 1,
    }
    assert json.loads(json.dumps(coverage)) == coverage
    text = tls_reports_summary(frame)
    assert "1 TLS reports of 1 organisations on 1 policy domains, 2026-08-03 to 2026-08-03" in text
    assert "certificate-expired" in text
    assert "1 with details beyond the total" in text
    assert "1: came before, and left out" in text
    assert "1: no TLS report in it" in text


def test_the_summary_of_nothing(read: Callable[..., pd.DataFrame]) -> None:
    """No report gives an empty table and a summary all the same."""
    frame = read(b"")
    assert frame.empty
    assert tls_reports_summary(frame).startswith("0 TLS reports")


def test_the_summary_shows_no_control_characters(read: Callable[..., pd.DataFrame]) -> None:
    """What a reporter wrote cannot move the cursor of a terminal."""
    frame = read(report("r1", policy(kind="\x1b[2J", failed=1, **{"\x1b]0;x\x07": 1})))
    assert "\x1b" not in tls_reports_summary(frame)
    assert "\\x1b[2J" in tls_reports_summary(frame)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from([data for _why, data in CONTAINERS]), st.data())
def test_damage_anywhere_does_not_stop_the_reader(data: bytes, draw: st.DataObject) -> None:
    """Bytes changed, taken out or put in give reports or a reason."""
    place = draw.draw(st.integers(0, len(data)))
    noise = draw.draw(st.binary(max_size=20))
    taken = draw.draw(st.integers(0, 40))
    found = find_reports(data[:place] + noise + data[place + taken :])
    assert found.reports or found.problem


def labels(name: str) -> list[dict[str, str]]:
    path = SHARED / name
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.mark.skipif(not labels("labels.csv"), reason="no tlsrpt/labels.csv beside the repository")
@pytest.mark.parametrize("file", sorted({row["file"] for row in labels("labels.csv")}))
def test_reports_of_real_senders(file: str) -> None:
    """Every value of every policy and failure detail is as its label says, and the sums are."""
    frame = read_tls_reports(SHARED / "reports" / file, progress=False)
    rows = frame.astype(object).where(frame.notna(), "")
    wanted = [row for row in labels("labels.csv") if row["file"] == file]
    assert rows["policy_index"].nunique() == len(wanted)
    for label in wanted:
        own = rows[rows["policy_index"] == int(label["n"]) - 1]
        first = own.iloc[0]
        assert (first["organization"], first["report_id"], first["contact"]) == (
            label["organization"],
            label["report_id"],
            label["contact"],
        )
        assert (first["begins_at"], first["ends_at"]) == (
            pd.Timestamp(label["start"]),
            pd.Timestamp(label["end"]),
        )
        assert (first["policy_type"], first["policy_domain"]) == (
            label["policy_type"],
            label["policy_domain"],
        )
        assert "|".join(first["policy_mx_hosts"]) == label["mx_host"]
        assert len(first["policy_strings"]) == int(label["policy_string_items"] or 0)
        assert (first["sessions_ok"], first["sessions_failed"]) == (
            int(label["success"]),
            int(label["failure"]),
        )
        assert (first["sums"] in ("details_exceed", "details_fall_short")) == (
            label["note"] == "failure sum differs"
        )
        details = [
            row for row in labels("failures.csv") if (row["file"], row["policy"]) == (file, label["n"])
        ]
        assert (own["result_type"] != "").sum() == len(details) == int(label["failure_details"])
        for detail, row in zip(details, own.to_dict("records"), strict=False):
            assert detail == detail | {
                "result_type": row["result_type"],
                "sending_mta_ip": row["sending_mta"],
                "receiving_mx_hostname": row["receiving_mx"],
                "receiving_mx_helo": row["receiving_helo"],
                "receiving_ip": row["receiving_address"],
                "failed_session_count": str(row["failed_sessions"]),
                "failure_reason_code": row["failure_reason"],
            }
            assert detail["additional_information"].strip() == row["additional_information"]


@pytest.mark.skipif(not labels("labels.csv"), reason="no tlsrpt/labels.csv beside the repository")
def test_a_folder_of_reports_counts_each_once() -> None:
    """Four of the files hold one and the same report."""
    frame = read_tls_reports(SHARED / "reports", progress=False)
    coverage = frame.attrs["coverage"]
    assert (coverage["reports"], coverage["duplicates"], coverage["skipped"]) == (14, 3, {})
    assert (
        frame.drop_duplicates(["source_file", "policy_index"])["sessions_failed"].sum()
        == 303 + 1 + 3 + 2 + 102
    )
