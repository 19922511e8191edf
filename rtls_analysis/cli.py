"""The `rtls` command: reads arguments, calls the package, prints, and exits. It computes nothing.

Exit codes: 0 done; 1 done, but some input could not be read (a file, a name in a list), or `audit` found a breach;
2 what was asked for cannot be done; 130 interrupted, what was done is kept.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from rtls_analysis.store import Snapshot

OK, UNREADABLE, USAGE, INTERRUPTED = 0, 1, 2, 130
_SHOWN_BREACHES = 50


class _Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(USAGE, f"{self.prog}: {message}; see {self.prog} --help\n")


def _count(text: str) -> int:
    """Read a whole number from 1."""
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1")
    return int(text)


def make_parser() -> argparse.ArgumentParser:
    """Build the parser of the `rtls` command with all its subcommands."""
    parser = _Parser(
        prog="rtls",
        description="Measure mandatory TLS in mail: REQUIRETLS (RFC 8689), STARTTLS, MTA-STS and DANE.",
    )
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=_Parser)
    _add_scan(commands)
    _add_show(commands)
    _add_compare(commands)
    _add_audit(commands)
    _add_logs(commands)
    _add_dsns(commands)
    _add_tls_reports(commands)
    _add_received(commands)
    _add_what_if(commands)
    _add_report(commands)
    _add_lab(commands)
    _add_demo(commands)
    return parser


def _add_scan(commands: Any) -> None:
    scan = commands.add_parser(
        "scan",
        help="probe the MX hosts of domains and judge who could receive REQUIRETLS mail",
        description="Greet each MX host of each domain at each of its addresses once (EHLO, STARTTLS, EHLO, QUIT; no "
        "mail is sent), look at DNSSEC, DANE, MTA-STS and TLSRPT, and judge. Without -o each domain's page is "
        "printed and nothing is stored; with the same -o again the scan is resumed.",
    )
    scan.add_argument(
        "domains", nargs="*", metavar="DOMAIN", help="domains to scan; - reads a list from standard input"
    )
    scan.add_argument(
        "-i",
        "--input",
        metavar="FILE",
        help="list of domains: one a line, or CSV with a rank; - is standard input",
    )
    scan.add_argument(
        "-o", "--output", metavar="DIR", help="directory for the snapshot, or an address as s3://BUCKET/NAME"
    )
    who = scan.add_argument_group("who scans (required; also RTLS_EHLO_NAME and RTLS_CONTACT)")
    who.add_argument("--ehlo-name", metavar="NAME", help="host name of yours to greet with")
    who.add_argument("--contact", metavar="ADDRESS", help="where you can be reached")
    where = scan.add_argument_group(
        "from where (also RTLS_VANTAGE and RTLS_SOURCE, on each worker of a cluster)"
    )
    where.add_argument(
        "--vantage",
        metavar="NAME|each",
        help="name of this place in the tables (the EHLO name); each: contact every target from every worker's place",
    )
    where.add_argument(
        "--source",
        action="append",
        metavar="ADDR",
        help="address of this machine to connect from, one IPv4 and one IPv6 at most",
    )
    where.add_argument(
        "--scheduler",
        metavar="ADDR",
        help="let the workers of a Dask cluster do it, as tcp://HOST:8786; DIR must be where all of them see it",
    )
    scan.add_argument(
        "--resolver",
        metavar="ADDR",
        help="validating resolver: ADDR[:PORT] or tls://ADDR[:PORT]#NAME; by default the first of /etc/resolv.conf. "
        "DNSSEC is believed on loopback or over TLS only",
    )
    scan.add_argument("--ca-file", metavar="PEM", help="root certificates in place of the built-in ones")
    scan.add_argument("--smtp-port", type=int, metavar="N", help="port of the MX hosts (25)")
    scan.add_argument("--https-port", type=int, metavar="N", help="port of the MTA-STS policy hosts (443)")
    scan.add_argument("--concurrency", type=int, metavar="N", help="connections at once (50)")
    scan.add_argument(
        "--workers", type=int, metavar="N", help="processes; by default one a core where there is much to do"
    )
    scan.add_argument(
        "--proxy",
        metavar="URL",
        help="make connections through socks5://HOST:PORT, as of ssh -D; names are looked up here",
    )
    scan.add_argument(
        "--responder",
        metavar="ADDR",
        help="mail server known to answer, ADDR[:PORT]: the scan begins only if it takes a connection",
    )
    scan.add_argument(
        "--sample-shared",
        type=int,
        metavar="N",
        help="of an address behind more than N MX hosts, probe a sample of N names",
    )
    scan.add_argument(
        "--allow-special",
        action="append",
        metavar="NET",
        help="special address or network of your own that may be contacted, as 127.0.0.0/8; may be repeated",
    )
    scan.add_argument(
        "--opt-out", metavar="FILE", help="domains, MX hosts and networks to leave alone, one a line"
    )
    scan.add_argument(
        "--config", metavar="TOML", help="file with any of these, and [timeouts], [manners], [rules]"
    )
    scan.add_argument("--seed", type=int, metavar="S", help="decides the order of the contacts (0)")
    scan.add_argument(
        "--plan",
        action="store_true",
        help="look everything up, print the plan, and stop before the first contact",
    )
    scan.add_argument("--quiet", action="store_true", help="no progress bars, no summary")
    scan.set_defaults(run=_scan)


def _add_show(commands: Any) -> None:
    show = commands.add_parser(
        "show",
        help="print what a snapshot or a table holds",
        description="Print what a snapshot holds, or a table that another command wrote.",
    )
    show.add_argument(
        "path", metavar="DIR|FILE", help="snapshot directory, or a .parquet, .csv or .jsonl file"
    )
    show.add_argument("--domain", metavar="DOMAIN", help="print this domain's page instead")
    show.add_argument("--table", metavar="NAME", help="print this table as CSV instead (lists as JSON)")
    _add_vantage(show)
    show.set_defaults(run=_show)


def _add_compare(commands: Any) -> None:
    compare = commands.add_parser(
        "compare",
        help="what two scans differ in, or what the vantages of one see otherwise",
        description="Print which domains came and went between two scans, and what each gained and lost. Of one scan "
        "that was made with --vantage each: on how many servers its vantages agree, and why they differ on the others.",
    )
    compare.add_argument("before", metavar="DIR", help="the earlier snapshot, or that of several vantages")
    compare.add_argument("after", metavar="DIR", nargs="?", help="the later one")
    _add_vantage(compare)
    compare.add_argument(
        "-o", "--output", metavar="FILE", help="write the table too: .parquet, .csv or .jsonl"
    )
    compare.set_defaults(run=_compare)


def _add_audit(commands: Any) -> None:
    audit = commands.add_parser(
        "audit",
        help="prove from a snapshot's record of connections that its manners held",
        description="Check every connection of a scan against the manners in its manifest. "
        "Exit 1 where a limit was broken.",
    )
    audit.add_argument("path", metavar="DIR", help="snapshot directory")
    audit.set_defaults(run=_audit)


def _add_vantage(command: Any) -> None:
    command.add_argument(
        "--vantage",
        metavar="NAME",
        help="of a scan that was made with --vantage each: what this one saw",
    )


_INPUTS = "files, globs, folders, or addresses as s3://BUCKET/NAME"
_OUTPUT = "write the table too: .parquet, .csv or .jsonl, or a FOLDER/ for Parquet parts; at an address too"


def _add_scheduler(command: Any) -> None:
    command.add_argument(
        "--scheduler",
        metavar="ADDR",
        help="let the workers of a Dask cluster do it, as tcp://HOST:8786; -o is a FOLDER/ that all of them see",
    )


def _add_logs(commands: Any) -> None:
    logs = commands.add_parser(
        "logs",
        help="read MTA logs: every delivery attempt with its TLS and REQUIRETLS outcome",
        description="Read the logs of mail servers, of any size, plain or packed, and sum up: attempts, TLS levels, "
        "REQUIRETLS outcomes, the worst destinations. With -o and --connections the tables are written too.",
    )
    logs.add_argument("paths", nargs="+", metavar="FILE", help=f"{_INPUTS}; - is standard input")
    logs.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        help="write the attempts: .parquet, .csv or .jsonl, or a FOLDER/ of parts",
    )
    logs.add_argument("--connections", metavar="FILE", help="write the connections too")
    logs.add_argument(
        "--mta", default="auto", metavar="NAME", help="read only this server's lines, as postfix (auto)"
    )
    logs.add_argument(
        "--timezone", metavar="TZ", help="zone of stamps without one, as Europe/Berlin (this machine's)"
    )
    logs.add_argument("--year", type=int, metavar="Y", help="year of the first line, where stamps have none")
    logs.add_argument(
        "--pseudonymise",
        metavar="KEYFILE",
        help="replace local parts by hashes under the secret key in this file",
    )
    logs.add_argument("--domains-too", action="store_true", help="replace domains and hosts as well")
    _add_scheduler(logs)
    logs.add_argument("--quiet", action="store_true", help="no progress bar, no summary")
    logs.set_defaults(run=_logs)


def _add_dsns(commands: Any) -> None:
    dsns = commands.add_parser(
        "dsns",
        help="read bounces: what became of mail that came back",
        description="Read delivery status notifications out of .eml files, mbox, Maildir and folders, packed or not: a "
        "row for each recipient, with the TLS reason where there is one.",
    )
    dsns.add_argument("paths", nargs="+", metavar="PATH", help=f"{_INPUTS}; - is standard input")
    dsns.add_argument("-o", "--output", metavar="FILE", help=_OUTPUT)
    _add_scheduler(dsns)
    dsns.add_argument("--quiet", action="store_true", help="no progress bar, no summary")
    dsns.set_defaults(run=_dsns)


def _add_tls_reports(commands: Any) -> None:
    reports = commands.add_parser(
        "tls-reports",
        help="read SMTP TLS reports (RFC 8460)",
        description="Read TLS reports out of JSON, gzip, zip and mail: a row for each policy and failure.",
    )
    reports.add_argument("paths", nargs="+", metavar="PATH", help=f"{_INPUTS}; - is standard input")
    reports.add_argument("-o", "--output", metavar="FILE", help=_OUTPUT)
    _add_scheduler(reports)
    reports.add_argument("--quiet", action="store_true", help="no progress bar, no summary")
    reports.set_defaults(run=_tls_reports)


def _add_received(commands: Any) -> None:
    received = commands.add_parser(
        "received",
        help="read the trace of messages: which hops could have been REQUIRETLS",
        description="Read the Received fields of messages: a page for each message, a summary where there are many.",
    )
    received.add_argument(
        "paths", nargs="+", metavar="MESSAGE", help="messages, mbox, Maildir; - is standard input"
    )
    received.add_argument("-o", "--output", metavar="FILE", help=_OUTPUT)
    received.add_argument(
        "--minimum-tls",
        default="TLSv1.2",
        metavar="VERSION",
        help="a hop below it disproves REQUIRETLS (TLSv1.2)",
    )
    received.add_argument("--quiet", action="store_true", help="no progress bar, no page")
    received.set_defaults(run=_received)


def _add_what_if(commands: Any) -> None:
    what_if = commands.add_parser(
        "what-if",
        help="what would become of your own mail if it asked for REQUIRETLS",
        description="Join your own deliveries with a scan of where they went: what would be delivered, what would "
        "fail, who carries most of the loss, and what each would have to change.",
    )
    what_if.add_argument("--deliveries", required=True, metavar="FILE", help="table that rtls logs -o wrote")
    what_if.add_argument("--snapshot", required=True, metavar="DIR", help="scan of the recipient domains")
    _add_vantage(what_if)
    what_if.add_argument(
        "--rule",
        default="requiretls",
        choices=("requiretls", "verified", "pkix", "tls"),
        help="what is asked for: REQUIRETLS, DANE or MTA-STS, a certificate, any TLS (requiretls)",
    )
    what_if.add_argument("-o", "--output", metavar="FILE", help=_OUTPUT)
    what_if.add_argument(
        "--postfix-policy", metavar="FILE", help="write a proposal for main.cf, to be reviewed"
    )
    what_if.set_defaults(run=_what_if)


def _add_report(commands: Any) -> None:
    report = commands.add_parser(
        "report",
        help="write a scan and tables of mail as one HTML page",
        description="Write one self-contained page: plots, the tables behind them, every rate with its interval.",
    )
    report.add_argument("--snapshot", metavar="DIR", help="scan")
    _add_vantage(report)
    for name, maker in _REPORTED.items():
        report.add_argument(f"--{name.replace('_', '-')}", metavar="FILE", help=f"table that {maker} wrote")
    report.add_argument("-o", "--output", required=True, metavar="PAGE", help="file to write, as page.html")
    report.set_defaults(run=_report)


_REPORTED = {
    "deliveries": "rtls logs -o",
    "connections": "rtls logs --connections",
    "bounces": "rtls dsns -o",
    "tls_reports": "rtls tls-reports -o",
    "hops": "rtls received -o",
    "what_if": "rtls what-if -o",
}


def _add_lab(commands: Any) -> None:
    lab = commands.add_parser(
        "lab",
        help="run a small mail Internet on loopback to scan",
        description="Run a small mail Internet on loopback (DNS, MX hosts, policy hosts) and print how to scan it.",
    )
    lab.add_argument("--domains", type=_count, default=200, metavar="N", help="how many domains (200)")
    lab.add_argument("--seed", type=int, default=1, metavar="S", help="seed of the world (1)")
    lab.set_defaults(run=_lab)


def _add_demo(commands: Any) -> None:
    demo = commands.add_parser(
        "demo",
        help="the whole way without network: lab, scan, logs, bounces, reports, what-if, pages",
        description="Start the lab and scan it, read the sample logs, bounces and reports, ask what if, and write two "
        "pages. No network and no root needed.",
    )
    demo.add_argument(
        "-o", "--output", default="rtls-demo", metavar="DIR", help="directory for the results (./rtls-demo)"
    )
    demo.add_argument("--domains", type=_count, default=400, metavar="N", help="how many domains (400)")
    demo.set_defaults(run=_demo)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the `rtls` command; gives the exit code."""
    parser = make_parser()
    arguments = parser.parse_args(argv)
    if arguments.version:
        from rtls_analysis import __version__

        print(f"rtls_analysis {__version__}")
        return OK
    if arguments.command is None:
        parser.print_help()
        return USAGE
    run: Callable[[argparse.Namespace], int] = arguments.run
    try:
        return run(arguments)
    except KeyboardInterrupt as interrupt:
        print(f"rtls: {str(interrupt) or 'interrupted'}", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    except OSError as error:
        where = f" {error.filename}" if error.filename else ""
        print(f"rtls: {error.strerror or error}{where}", file=sys.stderr)
        return USAGE
    except Exception as error:
        if not _is_problem(error):
            raise
        print(f"rtls: {error}", file=sys.stderr)
        return USAGE


def _is_problem(error: Exception) -> bool:
    """Whether this is one of the package's own clear lines to the caller."""
    import rtls_analysis as rtls

    problems = (
        rtls.ScanProblem,
        rtls.ScanStopped,
        rtls.ListProblem,
        rtls.StoreProblem,
        rtls.ResolverProblem,
        rtls.ClusterProblem,
    )
    return isinstance(error, problems)


def _scan(arguments: argparse.Namespace) -> int:
    import rtls_analysis as rtls
    from rtls_analysis.scanner.options import read_opt_out
    from rtls_analysis.scanner.targets import make_targets, read_list

    names = [name for name in arguments.domains if name != "-"]
    sources = [arguments.input] if arguments.input else []
    sources += ["-"] if "-" in arguments.domains else []
    targets = make_targets(names)
    for source in sources:
        targets += read_list(source)
    if not targets:
        raise rtls.ListProblem("no domain to scan: give DOMAIN, or a list with -i FILE")
    options: dict[str, Any] = {
        name: getattr(arguments, name)
        for name in (
            "ehlo_name",
            "contact",
            "resolver",
            "ca_file",
            "smtp_port",
            "https_port",
            "concurrency",
            "workers",
            "proxy",
            "responder",
            "sample_shared",
            "allow_special",
            "config",
            "seed",
            "vantage",
            "source",
        )
    }
    if arguments.opt_out:
        options["opt_out"] = read_opt_out(arguments.opt_out)
    snapshot = rtls.scan(
        [(target.domain, target.rank) for target in targets],
        arguments.output,
        client=arguments.scheduler,
        plan_only=arguments.plan,
        progress=not arguments.quiet,
        **options,
    )
    if arguments.plan:
        from rtls_analysis.scanner.plan import plan_text

        print(plan_text(snapshot.manifest["plan"], concurrency=snapshot.manifest["concurrency"]))
    elif arguments.output is None:
        views = snapshot.by_vantage()
        for domain in dict.fromkeys(target.domain for target in targets):
            for seen in views:
                print(rtls.DomainPage(seen, domain))
    elif not arguments.quiet:
        print(snapshot)
        print(f"\nStored in {arguments.output}; rtls show {arguments.output} prints it again.")
    bad = snapshot.table("domains", columns=["domain", "detail"], where={"mx_state": "bad_name"})
    bad = bad.drop_duplicates("domain")
    for name, why in zip(bad["domain"], bad["detail"], strict=True):
        print(f"rtls: not scanned: {why or name}", file=sys.stderr)
    for warning in (
        *snapshot.manifest["vantage"].get("warnings", ()),
        snapshot.manifest["resolver"]["warning"],
    ):
        if warning:
            print(f"rtls: {warning}", file=sys.stderr)
    return UNREADABLE if len(bad) else OK


def _show(arguments: argparse.Namespace) -> int:
    import rtls_analysis as rtls

    if _is_table(arguments.path):
        return _show_table(arguments.path)
    snapshot = _seen_from(arguments.vantage, rtls.open_snapshot(arguments.path))
    if arguments.table:
        from rtls_analysis.schema import write_csv

        try:
            frame = snapshot.table(arguments.table)
        except ValueError as error:
            raise rtls.StoreProblem(str(error)) from None
        write_csv(frame, sys.stdout)
    elif arguments.domain:
        from rtls_analysis.standards.names import NameProblem, to_ascii

        try:
            pages = [rtls.DomainPage(seen, to_ascii(arguments.domain)) for seen in snapshot.by_vantage()]
            print("\n".join(map(str, pages)))
        except (KeyError, NameProblem):
            raise rtls.StoreProblem(f"{arguments.path} has no domain {arguments.domain!r}") from None
    else:
        print(snapshot)
    return OK


def _seen_from(vantage: str | None, snapshot: Snapshot) -> Snapshot:
    """Give a snapshot, or what one of its vantages saw."""
    import rtls_analysis as rtls

    try:
        return snapshot if vantage is None else snapshot.from_vantage(vantage)
    except ValueError as error:
        raise rtls.StoreProblem(f"{snapshot.address}: {error}") from None


def _told_once(vantage: str | None, snapshot: Snapshot) -> Snapshot:
    """Give a snapshot, or what one of its vantages saw, that tells each thing once."""
    import rtls_analysis as rtls

    seen = _seen_from(vantage, snapshot)
    if seen.is_from_each:
        names = ", ".join(seen.vantages)
        raise rtls.StoreProblem(
            f"{snapshot.address} was seen from each of {names}: take one with --vantage NAME"
        )
    return seen


def _is_table(path: str) -> bool:
    """Whether this is a table in a file, or in a folder of Parquet parts, and no snapshot."""
    from rtls_analysis.storage import open_folder
    from rtls_analysis.store import MANIFEST

    if path.endswith((".parquet", ".csv", ".jsonl")) or Path(path).is_file():
        return True
    folder = open_folder(path)
    return not folder.exists(MANIFEST) and bool(folder.list("", "*.parquet"))


def _show_table(path: str) -> int:
    from rtls_analysis.table_files import read_table, table_of

    frame = read_table(path)
    table = table_of(frame.columns)
    if table is None:
        print(f"{len(frame):,} rows of a table that is none of ours\n\n{frame.head(20).to_string()}")
        return OK
    print(f"{table.name}: {len(frame):,} rows, one per {table.one_row_per}\n")
    match table.name:
        case "deliveries":
            from rtls_analysis.read.log_summary import LogSummary

            summary = LogSummary()
            summary.add(frame)
            print(summary)
        case "bounces":
            from rtls_analysis.read.dsn import summarise_dsns

            print(summarise_dsns(frame))
        case "tls_reports":
            from rtls_analysis.read.tls_reports import tls_reports_summary

            print(tls_reports_summary(frame))
        case "what_if":
            from rtls_analysis.analysis.what_if_text import what_if_text

            print(what_if_text(frame))
        case "hops":
            from rtls_analysis.read.trace import received_report

            print(received_report(frame))
        case _:
            print(frame.head(20).to_string())
    return OK


def _compare(arguments: argparse.Namespace) -> int:
    import rtls_analysis as rtls
    from rtls_analysis.analysis.snapshots import changes_text, compare_vantages, sights_text

    if arguments.after is None:
        if arguments.vantage:
            raise rtls.ScanProblem("--vantage goes with two scans: one is compared from all of its vantages")
        try:
            changes = compare_vantages(rtls.open_snapshot(arguments.before))
        except ValueError as error:
            raise rtls.StoreProblem(f"{arguments.before}: {error}") from None
        print(sights_text(changes))
    else:
        scans = [rtls.open_snapshot(path) for path in (arguments.before, arguments.after)]
        each = [scan.is_from_each for scan in scans]
        # beside a scan from each vantage one from a single place is taken whole
        named = [arguments.vantage if is_each or not any(each) else None for is_each in each]
        before, after = map(_told_once, named, scans)
        changes = rtls.compare(before, after)
        print(changes_text(changes))
    if arguments.output:
        from rtls_analysis.table_files import write_table

        write_table(changes, arguments.output)
    return OK


def _audit(arguments: argparse.Namespace) -> int:
    import rtls_analysis as rtls

    snapshot = rtls.open_snapshot(arguments.path)
    breaches = rtls.audit(snapshot)
    count = snapshot.count("attempts")
    if not len(breaches):
        print(f"{count:,} connections, all within the manners of the scan")
        return OK
    print(breaches.head(_SHOWN_BREACHES).to_string(index=False))
    if len(breaches) > _SHOWN_BREACHES:
        print(f"... and {len(breaches) - _SHOWN_BREACHES:,} more, all of them by rule:")
        print(breaches["rule"].value_counts().to_string(header=False))
    print(f"\n{len(breaches):,} breaches in {count:,} connections", file=sys.stderr)
    return UNREADABLE


def _logs(arguments: argparse.Namespace) -> int:
    import rtls_analysis as rtls
    from rtls_analysis.read.log_summary import coverage_text
    from rtls_analysis.read.logs import write_logs

    if arguments.domains_too and not arguments.pseudonymise:
        raise rtls.ScanProblem("--domains-too goes with --pseudonymise KEYFILE")
    _check_scheduler(arguments)
    try:
        summary, coverage = write_logs(
            arguments.paths,
            arguments.output,
            arguments.connections,
            mta=arguments.mta,
            timezone=arguments.timezone,
            year=arguments.year,
            pseudonymise=arguments.pseudonymise,
            domains_too=arguments.domains_too,
            client=arguments.scheduler,
            progress=not arguments.quiet,
        )
    except ValueError as error:
        raise rtls.ScanProblem(str(error)) from None
    if not arguments.quiet:
        print(coverage_text(coverage))
        print(f"\n{summary}")
    return UNREADABLE if coverage.get("unreadable_files") else OK


def _dsns(arguments: argparse.Namespace) -> int:
    import rtls_analysis as rtls
    from rtls_analysis.read.dsn import summarise_dsns

    _check_scheduler(arguments)
    if not arguments.output:
        return _tell(rtls.read_dsns(arguments.paths, progress=not arguments.quiet), summarise_dsns, arguments)
    try:
        summary = rtls.write_dsns(
            arguments.paths, arguments.output, client=arguments.scheduler, progress=not arguments.quiet
        )
    except ValueError as error:
        raise rtls.ScanProblem(str(error)) from None
    if not arguments.quiet:
        print(summary)
    return _unreadable(summary.coverage.get("unreadable_files"))


def _tls_reports(arguments: argparse.Namespace) -> int:
    import rtls_analysis as rtls
    from rtls_analysis.read.tls_reports import tls_reports_summary

    _check_scheduler(arguments)
    shown = not arguments.quiet
    if not arguments.scheduler:
        return _tell(rtls.read_tls_reports(arguments.paths, progress=shown), tls_reports_summary, arguments)
    from rtls_analysis.frames import collected

    try:
        found = rtls.read_tls_reports(
            arguments.paths, client=arguments.scheduler, out=arguments.output, progress=shown
        )
    except ValueError as error:
        raise rtls.ScanProblem(str(error)) from None
    frame = collected(found)
    if shown:
        print(tls_reports_summary(frame))
    return _unreadable(frame.attrs["coverage"].get("unreadable_files"))


def _check_scheduler(arguments: argparse.Namespace) -> None:
    """Raise where a cluster would not know where to put what it reads."""
    import rtls_analysis as rtls

    if arguments.scheduler and not arguments.output:
        raise rtls.ScanProblem("--scheduler goes with -o FOLDER/, which all workers see")


def _received(arguments: argparse.Namespace) -> int:
    import rtls_analysis as rtls
    from rtls_analysis.read.trace import received_report

    try:
        frame = rtls.read_received(
            arguments.paths, minimum_tls=arguments.minimum_tls, progress=not arguments.quiet
        )
    except ValueError as error:
        raise rtls.ScanProblem(str(error)) from None
    return _tell(frame, received_report, arguments)


def _report(arguments: argparse.Namespace) -> int:
    import rtls_analysis as rtls

    given = {name: getattr(arguments, name) for name in _REPORTED if getattr(arguments, name)}
    if not given and not arguments.snapshot:
        raise rtls.ScanProblem("nothing to report on: give --snapshot DIR, or a table as --deliveries FILE")
    rtls.write_report(
        arguments.output,
        snapshot=_told_once(arguments.vantage, rtls.open_snapshot(arguments.snapshot))
        if arguments.snapshot
        else None,
        **{name: _read(path, name) for name, path in given.items()},
    )
    print(f"Written: {arguments.output}")
    return OK


def _read(path: str, name: str) -> Any:
    """Read the table of a name from a file; another one is the caller's mistake."""
    import rtls_analysis as rtls
    from rtls_analysis.table_files import table_of

    frame = rtls.read_table(path)
    table = table_of(frame.columns)
    if table is None or table.name != name:
        what = f"it holds {table.name}" if table is not None else "it is none of ours"
        raise rtls.StoreProblem(f"{path} is no table of {name}: {what}; make one with {_REPORTED[name]}")
    return frame


def _what_if(arguments: argparse.Namespace) -> int:
    import rtls_analysis as rtls
    from rtls_analysis.analysis.what_if_text import what_if_text

    deliveries = _read(arguments.deliveries, "deliveries")
    snapshot = _told_once(arguments.vantage, rtls.open_snapshot(arguments.snapshot))
    frame = rtls.what_if(deliveries, snapshot, rule=arguments.rule)
    print(what_if_text(frame))
    if arguments.output:
        rtls.write_table(frame, arguments.output)
    if arguments.postfix_policy:
        Path(arguments.postfix_policy).write_text(rtls.postfix_policy(frame), encoding="utf-8")
    return OK


def _tell(frame: Any, summary: Callable[[Any], str], arguments: argparse.Namespace) -> int:
    """Write a table where it is wanted, and print what it comes to."""
    if arguments.output:
        from rtls_analysis.table_files import write_table

        write_table(frame, arguments.output)
    if not arguments.quiet:
        print(summary(frame))
    return _unreadable(frame.attrs["coverage"].get("unreadable_files"))


def _unreadable(names: Any) -> int:
    """Say what could not be read, and give the exit code that goes with it."""
    for name in names or ():
        print(f"rtls: cannot be read: {name}", file=sys.stderr)
    return UNREADABLE if names else OK


def _lab(arguments: argparse.Namespace) -> int:
    from rtls_analysis.lab import print_and_serve

    print_and_serve(arguments.domains, arguments.seed)
    return OK


def _demo(arguments: argparse.Namespace) -> int:
    from rtls_analysis.demo import print_paragraph, run_demo
    from rtls_analysis.lab import start_lab

    with start_lab(domains=arguments.domains, seed=1) as lab:
        run_demo(lab, Path(arguments.output), say=print_paragraph)
    return OK


if __name__ == "__main__":
    sys.exit(main())
