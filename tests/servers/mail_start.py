"""Send messages of `mail_world`: ``python -m tests.servers.mail_start ROOTS FOLDER PLAN``, first of its namespaces.

It starts resolver, receivers and senders, submits, waits until no queue holds anything, and ends, and everything with
it. What remains is ``FOLDER/log/<server>/``: the server's log and, in ``mail/``, what it stored.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import smtplib
import ssl
import subprocess
import sys
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding

import rtls_analysis as rtls
from tests.servers.conftest import MANNERS, PRIVATE, REPOSITORY
from tests.servers.mail_world import (
    BY_DOMAIN,
    DESTINATIONS,
    EXTRA_DESTINATIONS,
    NEXT_HOP,
    NOBODY,
    RECEIVER,
    RELAY,
    UTF8_DOMAIN,
    Destination,
    Level,
    Message,
    Policy,
    mail_addresses,
    messages,
)
from tests.servers.materials import Issued, issue, lab_root, tlsa_data, write_pair, write_zones
from tests.servers.prepare import CannotPrepare, layer_folders, ready_roots
from tests.servers.start import DNS, World
from tests.servers.world import ALLOW_SPECIAL, EHLO_NAME, NAME_SERVER, P11, PREFIX, RESOLVER

LOG, INBOX = "postfix.log", "mail/inbox"  # in a server's folder
CLIENT = "client.plain.test"
SECONDS = 250  # for everything, on a machine that is busy with other things
DEAF = f"{PREFIX}.1.250"  # nobody listens there
QUEUE_SECONDS = 150  # until every queue is empty, at most
ANONYMOUS = "aNULL:-aNULL:HIGH:@SECLEVEL=0"  # as before OpenSSL 1.1
QUEUES = ("maildrop", "incoming", "active", "deferred", "hold")

# Mail is tried again soon, and given up soon. A destination that failed is tried again for the next message all the
# same, so that what becomes of a message does not hang on those before it.
SHARED = """\
compatibility_level = 3.11
inet_protocols = ipv4
maillog_file = /var/log/postfix.log
alias_maps =
alias_database =
mydestination =
notify_classes =
mynetworks = 127.0.0.0/8, 10.25.0.0/16
in_flow_delay = 0
queue_run_delay = 2s
minimal_backoff_time = {backoff}s
maximal_backoff_time = {backoff}s
maximal_queue_lifetime = 16s
bounce_queue_lifetime = 16s
delay_warning_time = 2s
bounce_template_file = /etc/postfix/bounce.cf
default_destination_concurrency_failed_cohort_limit = 0
smtp_host_lookup = dns
smtp_tls_CAfile = /world/ca.pem
smtp_tls_loglevel = 1
smtpd_client_connection_rate_limit = 0
smtpd_client_connection_count_limit = 0
smtpd_error_sleep_time = 0
smtpd_hard_error_limit = 1000
smtpd_peername_lookup = no
smtpd_tls_security_level = may
smtpd_tls_received_header = yes
smtpd_tls_session_cache_database =
virtual_mailbox_base = /var/log/mail
virtual_mailbox_maps = static:inbox/
virtual_uid_maps = static:5000
virtual_gid_maps = static:5000
"""


@dataclass(frozen=True)
class Plan:
    """What is done: which messages are sent, and how fast."""

    numbers: tuple[int, ...] = ()  # all, if there are none
    pause: float = 0  # seconds after each message of a sender
    backoff: int = 3  # seconds between two tries
    scan: bool = False  # whether the destinations are scanned first, into ``FOLDER/scan``

    def messages(self, policy: Policy) -> list[Message]:
        """Give the messages of one sender."""
        wanted = [message for message in messages() if message.policy is policy]
        return [message for message in wanted if not self.numbers or message.number in self.numbers]


def _inline(pairs: Iterable[tuple[str, str]]) -> str:
    return f"inline:{{{', '.join(f'{{{key} = {value}}}' for key, value in pairs)}}}"


def _service(line: str, **options: str) -> str:
    """Write an entry of master.cf."""
    return "\n".join([line, *(f"  -o {{ {name} = {value} }}" for name, value in options.items())])


class MailWorld(World):
    """The folder of a run, the mounted roots in it, and the processes that send and receive."""

    def __init__(self, roots: Path, folder: Path, plan: Plan) -> None:
        super().__init__(roots, folder, ())
        self.plan = plan
        self.by_host = mail_addresses()

    # -- ground ------------------------------------------------------------------------------------------------

    def make_network(self) -> None:
        """Give loopback every address of the world."""
        self.mount("ip", layer_folders(self.roots, DNS)[1:])
        lines = ["link set lo up"]
        own = (NAME_SERVER, DEAF, *self.by_host.values())
        lines += [f"address add {address}/32 dev lo" for address in own]
        batch = "\n".join(lines) + "\n"
        command = ["chroot", str(self.root("ip")), "ip", "-batch", "-"]
        subprocess.run(command, input=batch, text=True, check=True)

    def write_materials(self) -> None:
        """Write ``ca.pem``, ``certs/`` (a pair for each address) and ``zones/`` (not yet signed)."""
        certs, zones = self.folder / "certs", self.folder / "zones"
        for made in (certs, zones, self.folder / "log"):
            made.mkdir()
        (self.folder / "ca.pem").write_bytes(lab_root().certificate.public_bytes(Encoding.PEM))
        lines = []
        for policy in Policy:
            leaf, chain = issue("valid", policy.host)
            write_pair(certs, self.by_host[policy.host], leaf, chain)
            lines += [
                f"{policy.host}. IN A {self.by_host[policy.host]}",
                f"{policy.domain}. IN MX 10 {policy.host}.",
            ]
        for row in (*DESTINATIONS, *EXTRA_DESTINATIONS):
            issued = None
            if row.listens:
                issued, chain = issue(row.certificate, row.hosts[0])
                write_pair(certs, self.by_host[row.hosts[0]], issued, chain)
            lines += self._lines_of(row, issued)
        write_zones(zones, lines)

    def _lines_of(self, row: Destination, leaf: Issued | None) -> list[str]:
        if row.dns:
            return [f"{row.domain}. IN MX 0 ."] if row.dns == "null_mx" else []
        lines = [
            f"{row.domain}. IN MX {10 * number} {host}." for number, host in enumerate(row.hosts, start=1)
        ]
        if row.mx:
            return lines
        lines.append(f"{row.hosts[0]}. IN A {self.by_host.get(row.hosts[0], DEAF)}")
        owner = f"_25._tcp.{row.hosts[0]}."
        if row.tlsa == "broken":
            lines.append(f"{owner} IN CNAME tlsa.broken.test.")
            lines.append("tlsa.broken.test. IN A 127.0.0.1")
        elif row.tlsa and leaf is not None:
            lines.append(f"{owner} IN TLSA {tlsa_data(row.tlsa, leaf)}")
        return lines

    # -- mail --------------------------------------------------------------------------------------------------

    def start_mail_server(self, name: str, settings: str, services: list[str]) -> None:
        """Run a Postfix 3.11; what it stores lies beside its log."""
        self.mount(name, layer_folders(self.roots, P11))
        root = self.root(name)
        mail = self.folder / "log" / name / "mail"
        mail.mkdir()
        os.chown(mail, 5000, 5000)
        (root / "etc/postfix/main.cf").write_text("compatibility_level = 3.11\n")
        command = ["chroot", str(root), "postconf", "-t"]  # its own words, for times of seconds
        templates = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        (root / "etc/postfix/bounce.cf").write_text(re.sub("hours|days", "seconds", templates))
        (root / "etc/postfix/main.cf").write_text(SHARED.format(backoff=self.plan.backoff) + settings)
        master = (root / "etc/postfix/master.cf").read_text().splitlines()
        kept = [line for line in master if not re.match(r"smtp\s+inet", line)]
        (root / "etc/postfix/master.cf").write_text("\n".join(kept + services) + "\n")
        self.spawn(name, ["chroot", root, "postfix", "start-fg"])

    def start_sender(self, policy: Policy) -> None:
        """Run a sender: the TLS level depends on who the envelope says has sent it."""
        settings = (
            f"myhostname = {policy.host}\nmydomain = {policy.domain}\n"
            f"inet_interfaces = {self.by_host[policy.host]}\n"
            f"virtual_mailbox_domains = {policy.domain}\n"
            f"smtpd_tls_chain_files = /world/certs/{self.by_host[policy.host]}.pem\n"
        )
        if policy is not Policy.ENFORCE:  # which is the default
            settings += f"smtp_requiretls_policy = {policy}\n"
        if not policy.redacts:
            settings += "requiretls_redact_dsn = no\n"
        senders = [(f"{level}@{policy.domain}", f"{level}:") for level in Level]
        senders.append((f"jörg@{policy.domain}", "dane:"))
        settings += f"sender_dependent_default_transport_maps = {_inline(senders)}\n"
        services = [_service(f"{self.by_host[policy.host]}:25 inet n - n - - smtpd")]
        for level in Level:
            options = {"smtp_tls_security_level": level.value}
            if level is Level.DANE:
                options["smtp_dns_support_level"] = "dnssec"
            if level is Level.MAY:
                options["tls_medium_cipherlist"] = ANONYMOUS
            services.append(_service(f"{level} unix - - n - 10 smtp", **options))
        self.start_mail_server(policy.label, settings, services)

    def start_receivers(self) -> None:
        """Run one Postfix that is every MX host but that of the relay, and the relay."""
        rows = [row for row in (*DESTINATIONS, *EXTRA_DESTINATIONS) if row.listens]
        domains = ", ".join(sorted({row.domain for row in BY_DOMAIN.values()} | {UTF8_DOMAIN}))
        unknown = _inline(
            (f"{NOBODY}{more}@", "550 5.1.1 User unknown in virtual mailbox table")
            for more in ("", "-ü", "-é")
        )
        settings = (
            "myhostname = mx1.receiver.test\nmydomain = receiver.test\n"
            f"inet_interfaces = {', '.join(self.by_host[row.hosts[0]] for row in rows if row.server == RECEIVER)}\n"
            f"virtual_mailbox_domains = {domains}\n"
            f"smtpd_recipient_restrictions = check_recipient_access {unknown}\n"
        )
        services = [self._listener(row) for row in rows if row.server == RECEIVER]
        self.start_mail_server(RECEIVER, settings, services)
        (relay,) = (row for row in rows if row.server == RELAY)
        settings = (
            f"myhostname = {relay.hosts[0]}\nmydomain = {relay.domain}\nrelay_domains = {relay.domain}\n"
            "virtual_mailbox_domains =\n"  # else all of them
            f"inet_interfaces = {self.by_host[relay.hosts[0]]}\n"
            f"transport_maps = {_inline([(relay.domain, f'smtp:{NEXT_HOP}')])}\n"
            "smtp_tls_security_level = dane\nsmtp_dns_support_level = dnssec\n"
        )
        self.start_mail_server(RELAY, settings, [self._listener(relay)])

    def _listener(self, row: Destination) -> str:
        address = self.by_host[row.hosts[0]]
        options = {"myhostname": row.hosts[0], "smtpd_tls_chain_files": f"/world/certs/{address}.pem"}
        for setting in row.settings:
            match setting:
                case "no_starttls":
                    options["smtpd_tls_security_level"] = "none"
                case "no_requiretls":
                    options["requiretls_enable"] = "no"
                case "no_ca":  # its TLS library does not come up: 454 to STARTTLS
                    options["smtpd_tls_CAfile"] = "/world/certs/nowhere.pem"
                case "no_cipher":  # its ciphers want another key than it has
                    options |= {"smtpd_tls_protocols": "TLSv1.2", "tls_medium_cipherlist": "aRSA"}
                case "tls12":
                    options |= {"smtpd_tls_protocols": "TLSv1.2", "tls_medium_cipherlist": ANONYMOUS}
                case "no_dsn":
                    options["smtpd_discard_ehlo_keywords"] = "dsn"
                case "no_smtputf8":
                    options["smtputf8_enable"] = "no"
                case "refuses_mail":
                    refusal = "static:{550 5.7.30 REQUIRETLS support required}"
                    options |= {
                        "smtpd_delay_reject": "no",
                        "smtpd_sender_restrictions": f"check_sender_access {refusal}",
                    }
        return _service(f"{address}:25 inet n - n - - smtpd", **options)

    # -- all of it ---------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start everything, and wait until it all listens."""
        self.write_materials()
        self.make_network()
        self.mount(DNS, layer_folders(self.roots, DNS))
        self.sign_zones()
        self.serve_dns()
        self.start_receivers()
        for policy in Policy:
            self.start_sender(policy)
        self.wait({(NAME_SERVER, 53), (RESOLVER, 53), *((address, 25) for address in self.by_host.values())})

    def scan(self) -> None:
        """Scan every domain that mail is sent to, at full speed."""
        with contextlib.chdir(self.folder):  # the manifest shall name no folder of this machine
            rtls.scan(
                sorted(BY_DOMAIN),
                "scan",
                resolver=RESOLVER,
                ca_file="ca.pem",
                allow_special=list(ALLOW_SPECIAL),
                ehlo_name=EHLO_NAME,
                contact="postmaster@plain.test",
                manners=MANNERS,
                seed=1,
                progress=False,
            )

    def submit(self) -> None:
        """Hand the messages to their senders' servers, all at once."""
        with ThreadPoolExecutor(len(Policy)) as pool:
            for _done in pool.map(self._submit_to, Policy):
                pass

    def _submit_to(self, policy: Policy) -> None:
        """Submit over TLS what asks for REQUIRETLS, which a server takes within TLS only, the rest without."""
        with (
            smtplib.SMTP(self.by_host[policy.host], local_hostname=CLIENT) as clear,
            smtplib.SMTP(self.by_host[policy.host], local_hostname=CLIENT) as secured,
        ):
            context = ssl.create_default_context(cafile=str(self.folder / "ca.pem"))
            context.check_hostname = False  # it is reached by address
            secured.starttls(context=context)
            for link in (clear, secured):
                link.ehlo()
            for message in self.plan.messages(policy):
                _submit(secured if message.requiretls else clear, message)
                time.sleep(self.plan.pause)

    def finish(self) -> None:
        """Wait until no queue holds anything, and stop the servers, so that their logs are whole."""
        names = (RECEIVER, RELAY, *(policy.label for policy in Policy))
        deadline = time.monotonic() + QUEUE_SECONDS
        empty = 0
        while empty < 2:  # a message may be on its way from one to the other
            time.sleep(0.3)
            left = [file for name in names for file in self._queued(name)]
            empty = 0 if left else empty + 1
            if left and time.monotonic() > deadline:
                raise RuntimeError(f"still queued after {QUEUE_SECONDS} s: {sorted(left)[:5]}")
        for name in names:
            subprocess.run(["chroot", self.root(name), "postfix", "stop"], capture_output=True, check=True)

    def _queued(self, name: str) -> list[str]:
        spool = self.root(name) / "var/spool/postfix"
        return [
            f"{name}/{queue}/{file}"
            for queue in QUEUES
            for _, _, files in os.walk(spool / queue)
            for file in files
        ]


def _submit(link: smtplib.SMTP, message: Message) -> None:
    options = [f"SIZE={len(message.text())}"]
    options += ["REQUIRETLS"] if message.requiretls else []
    options += ["SMTPUTF8"] if message.is_utf8 else []
    wish = message.options
    options += [f"RET={wish.ret}"] if wish.ret else []
    options += [f"ENVID={xtext(wish.envelope_id)}"] if wish.envelope_id else []
    for_each = [f"NOTIFY={wish.notify}"] if wish.notify else []
    code, reply = link.mail(message.sender, options)
    if code == 250:
        for recipient in message.recipients:
            original = [f"ORCPT={original_recipient(recipient)}"] if wish.original_recipient else []
            code, reply = link.docmd("RCPT", " ".join([f"TO:<{recipient}>", *for_each, *original]))
            if code != 250:
                break
        else:
            code, reply = link.data(message.text())
    if code != 250:
        raise RuntimeError(f"message {message.number} was not taken: {code} {reply!r}")


def xtext(text: str) -> str:
    """Encode as RFC 3461 §4 wants it."""
    return re.sub(r"[^!-*,-<>-~]", lambda match: f"+{ord(match[0]):02X}", text)


def original_recipient(address: str) -> str:
    r"""Give type and address for ORCPT: with ``\x{HEX}`` where it is not ASCII (RFC 6533 §3)."""
    if address.isascii():
        return f"rfc822;{xtext(address)}"
    embedded = "".join(c if "!" <= c <= "~" and c not in "+=\\" else f"\\x{{{ord(c):X}}}" for c in address)
    return f"utf-8;{embedded}"


def send(folder: Path, plan: Plan = Plan()) -> None:
    """Run all of this in namespaces of its own.

    Raises
    ------
    CannotPrepare
        The servers are not prepared, or there are no namespaces here: with the reason.
    """
    roots, missing = ready_roots()
    if P11 in missing:
        raise CannotPrepare(missing[P11])
    trial = subprocess.run([*PRIVATE, "true"], capture_output=True, text=True, check=False)
    if trial.returncode:
        raise CannotPrepare(
            f"no namespaces for the real servers here: {' '.join(trial.stderr.split())[:200]}"
        )
    (folder / "mnt").mkdir()
    script = 'mount -t tmpfs tmpfs "$0"; exec "$@"'  # gone with the namespace
    start = [
        sys.executable,
        "-m",
        "tests.servers.mail_start",
        str(roots),
        str(folder),
        json.dumps(asdict(plan)),
    ]
    done = subprocess.run(
        [*PRIVATE, "sh", "-ec", script, str(folder / "mnt"), *start],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        cwd=REPOSITORY,
        timeout=SECONDS,
    )
    if done.returncode:
        raise RuntimeError(f"the messages were not all sent: {done.stdout}{done.stderr[-3000:]}")


def main() -> None:
    """Send what the plan wants, and end."""
    roots, folder, plan = sys.argv[1:]
    os.umask(0o022)
    world = MailWorld(Path(roots), Path(folder), Plan(**json.loads(plan)))
    began = time.monotonic()

    def say(what: str) -> None:
        print(f"{time.monotonic() - began:5.1f} s {what}", flush=True)

    world.start()
    say("everything listens")
    if world.plan.scan:
        world.scan()
        say("everything is scanned")
    world.submit()
    say("everything is submitted")
    world.finish()
    say("every queue is empty")


if __name__ == "__main__":
    main()
