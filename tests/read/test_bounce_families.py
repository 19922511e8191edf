"""Notices in words: the ways in which programs without delivery-status fields say who failed, and why."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtls_analysis.outcomes import Action
from rtls_analysis.read.dsn_message import MailKind, Notice, read_notice

# Each: family, header lines, words, and what comes out: (recipient, enhanced code, reply code, action).
# The words follow what the programs write; names and addresses are ours.
DAEMON = "From: MAILER-DAEMON@relay.test"
RETURNED = """
Received: from desk.test (desk.test [192.0.2.7]) by relay.test with ESMTP id 1
Message-ID: <1@desk.test>
From: writer@desk.test
To: someone.else@away.test
Subject: lunch

Shall we?
"""

FAMILIES = [
    (
        "qmail",
        DAEMON,
        """Hi. This is the qmail-send program at relay.test.
I'm afraid I wasn't able to deliver your message to the following addresses.
This is a permanent error; I've given up. Sorry it didn't work out.

<a@away.test>:
192.0.2.32 does not like recipient.
Remote host said: 550 5.1.1 <a@away.test>: unknown
Giving up on 192.0.2.32.

<b@away.test>:
Sorry, I couldn't find any host named away.test. (#5.1.2)

--- Below this line is a copy of the message.
""",
        [("a@away.test", "5.1.1", 550, "failed"), ("b@away.test", "5.1.2", None, "failed")],
    ),
    (
        "exim",
        "From: Mail Delivery System <Mailer-Daemon@relay.test>\nX-Failed-Recipients: a@away.test,\n  b@away.test",
        """This message was created automatically by mail delivery software.

A message sent by

  <writer@desk.test>

could not be delivered to one or more of its recipients. The following
address(es) failed:

  a@away.test
    (generated from list@relay.test)
    SMTP error from remote mail server after RCPT TO:<a@away.test>:
    host mx.away.test [192.0.2.20]: 550-5.1.1 no such
    550 user here
  b@away.test
    Unrouteable address

------ This is a copy of the message, including all the headers. ------
""",
        [("a@away.test", "5.1.1", 550, "failed"), ("b@away.test", None, None, "failed")],
    ),
    (
        "exim",
        "From: Mail Delivery System <Mailer-Daemon@relay.test>",
        """This message was created automatically by mail delivery software.
A message that you sent has not yet been delivered to one or more of its
recipients after more than 24 hours on the queue on relay.test.

The address to which the message has not yet been delivered is:

  a@away.test

No action is required on your part. Delivery attempts will continue for
some time, and this warning may be repeated at intervals if the message
remains undelivered.
""",
        [("a@away.test", None, None, "delayed")],
    ),
    (
        "sendmail",
        DAEMON,
        """The original message was received at Mon, 23 Nov 2026 16:32:30 GMT
from desk.test [192.0.2.7]

   ----- The following addresses had permanent fatal errors -----
<a@away.test>
"|/usr/local/bin/filter"
    (expanded from: <b@relay.test>)

   ----- Transcript of session follows -----
... while talking to mx.away.test.:
>>> RCPT To:<a@away.test>
<<< 550 5.1.1 <a@away.test>... User unknown
550 <a@away.test>... User unknown

   ----- Original message follows -----
""",
        [("a@away.test", "5.1.1", 550, "failed")],
    ),
    (
        "sendmail",
        DAEMON,
        """   ----- Transcript of session follows -----
... while talking to away.test.:
>>> RCPT To:<a@away.test>
<<< 550 <a@away.test>... User unknown
550 a@away.test... User unknown
421 b@late.test... Deferred: Connection timed out

   ----- Unsent message follows -----
""",
        [("a@away.test", None, 550, "failed"), ("b@late.test", None, 421, "failed")],
    ),
    (
        "postfix",
        "From: MAILER-DAEMON@relay.test (Mail Delivery System)",
        """This is the Postfix program at host relay.test.

I'm sorry to have to inform you that the message returned
below could not be delivered to one or more destinations.

For further assistance, please send mail to <postmaster@relay.test>

                   The Postfix program

<a@away.test>: host mx.away.test[192.0.2.3] said: 554 5.7.1
    <writer@desk.test>: Sender address rejected (in reply to RCPT TO
    command)
""",
        [("a@away.test", "5.7.1", 554, "failed")],
    ),
    (
        "opensmtpd",
        "From: Mailer Daemon <MAILER-DAEMON@relay.test>",
        """    Hi!

    This is the MAILER-DAEMON, please DO NOT REPLY to this e-mail.

    An error has occurred while attempting to deliver a message for
    the following list of recipients:

a@away.test: 550 5.2.2 <a@away.test>... Mailbox Full

    Below is a copy of the original message:
""",
        [("a@away.test", "5.2.2", 550, "failed")],
    ),
    (
        "exchange",
        "From: System Administrator <postmaster@relay.test>",
        """Your message

  To:      list@relay.test
  Subject: lunch
  Sent:    Mon, 23 Nov 2026 16:32:30 +0000

did not reach the following recipient(s):

a@away.test on Mon, 23 Nov 2026 16:33:30 +0000
    The recipient name is not recognized
	The MTS-ID of the original message is: c=xx;a= ;p=relay;l=RELAY0001
    MSEXCH:IMS:Relay:SITE:RELAY 0 (000C05A6) Unknown Recipient
""",
        [("a@away.test", None, None, "failed")],
    ),
    (
        "exchange",
        "From: Microsoft Exchange <MicrosoftExchange329e71ec88ae4615bbc36ab6ce41109e@relay.test>",
        """Delivery has failed to these recipients or distribution lists:

a@away.test<mailto:a@away.test>
The recipient's e-mail address was not found in the recipient's e-mail system.

Diagnostic information for administrators:

Generating server: relay.test

a@away.test
#550 5.1.1 RESOLVER.ADR.RecipNotFound; not found ##

Original message headers:
""",
        [("a@away.test", "5.1.1", 550, "failed")],
    ),
    (
        "exchange",
        "From: Postmaster <postmaster@relay.test>",
        """Échec de la remise pour les destinataires ou les listes de distribution suivants :

a@away.test<mailto:a@away.test>
L'adresse de messagerie est introuvable.

Informations de diagnostic pour les administrateurs :

Serveur de génération : relay.test
Generating server: relay.test

a@away.test
#550 5.1.1 RESOLVER.ADR.RecipNotFound; not found ##
""",
        [("a@away.test", "5.1.1", 550, "failed")],
    ),
    (
        "gmail",
        "From: Mail Delivery Subsystem <mailer-daemon@googlemail.com>\nX-Failed-Recipients: a@away.test",
        """Delivery to the following recipient failed permanently:

     a@away.test

Technical details of permanent failure:
Google tried to deliver your message, but it was rejected by the server for the recipient domain away.test by
mx.away.test. [192.0.2.3].

The error that the other server returned was:
550 5.1.1 no such user

----- Original message -----
""",
        [("a@away.test", "5.1.1", 550, "failed")],
    ),
    (
        "gmail",
        "From: Mail Delivery Subsystem <mailer-daemon@googlemail.com>",
        """This is an automatically generated Delivery Status Notification

THIS IS A WARNING MESSAGE ONLY.

YOU DO NOT NEED TO RESEND YOUR MESSAGE.

Delivery to the following recipient has been delayed:

     a@away.test

Message will be retried for 2 more day(s)

Technical details of temporary failure:
DNS Error: DNS server returned answer with no data

----- Original message -----
""",
        [("a@away.test", None, None, "delayed")],
    ),
    (
        "yahoo",
        "From: MAILER-DAEMON@yahoo.test",
        """Sorry, we were unable to deliver your message to the following address.

<a@away.test>:
Remote host said:
554 5.7.9 Message not accepted for policy reasons
[BODY]

--- Below this line is a copy of the message.
""",
        [("a@away.test", "5.7.9", 554, "failed")],
    ),
    (
        "domino",
        "From: Postmaster@relay.test",
        """Your message

  Subject: lunch

was not delivered to:

  a@away.test

because:

  User a (a@away.test) not listed in Domino Directory

""",
        [("a@away.test", None, None, "failed")],
    ),
    (
        "text",
        DAEMON,
        """Your message:
   From:    writer@desk.test
   Subject: lunch

Could not be delivered because of

550 5.1.1 User unknown

The following recipients were affected:
    a@away.test

Additional Information
======================
Original Sender:    <writer@desk.test>
Sender-MTA:         <192.0.2.7>
""",
        [("a@away.test", "5.1.1", 550, "failed")],
    ),
    (
        "text",
        DAEMON,
        """--- The following addresses had delivery problems ---

<a@away.test>   (User unknown a@away.test)

""",
        [("a@away.test", None, None, "failed")],
    ),
    (
        "text",
        DAEMON,
        """Your message could not be sent.
A transcript of the attempts to send the message follows.
The number of attempts made: 1
Addressed To: a@away.test

Mon 23 Nov 2026 16:32:30 +0000
Failed to send to identified host,
a@away.test: [192.0.2.5], 550 a@away.test... No such user

--- Message non-deliverable.
""",
        [("a@away.test", None, 550, "failed")],
    ),
    (
        "text",
        "From: postmaster@relay.test\nX-Mailer: other",
        "Unknown user: a@away.test\n\nOriginal message follows.\n",
        [("a@away.test", None, None, "failed")],
    ),
    (
        "text",
        "From: postmaster@relay.test",
        "User mailbox exceeds allowed size: a@away.test\n\nOriginal message follows.\n",
        [("a@away.test", None, None, "failed")],
    ),
    (
        "text",
        DAEMON,
        """Unable to deliver message to the following address(es).

<a@away.test>:
User does not exist - <a@away.test>

<b@away.test>:
Mailbox is full

--- Original message follows.
""",
        [("a@away.test", None, None, "failed"), ("b@away.test", None, None, "failed")],
    ),
    (
        "text",
        DAEMON,
        """Message from interscan e-mail viruswall

** Please don't reply to this message

>>> RCPT TO: <a@away.test>
<<< 550 5.1.1 unknown

The message could not be delivered.
** End of Message **
""",
        [("a@away.test", "5.1.1", 550, "failed")],
    ),
    (
        "text",
        DAEMON,
        """The following addresses did NOT receive a copy of your message:

> a@away.test

--- Session Transcript ---
 Parsing Message <xyzzy>
--- End Transcript ---
""",
        [("a@away.test", None, None, "failed")],
    ),
    (
        "text",
        DAEMON,
        "Intended recipient:  a@away.test\nMailbox is full, the message was not delivered.\n"
        "\n--------RETURNED MAIL FOLLOWS--------\n",
        [("a@away.test", None, None, "failed")],
    ),
    (
        "text",
        DAEMON,
        "The mail could not be delivered. Undeliverable Address:  a@away.test\n\nOriginal message attached\n",
        [("a@away.test", None, None, "failed")],
    ),
    (
        "text",
        DAEMON,
        "This message was created for you. A message that you sent, addressed to 'a@away.test', was not delivered:\n"
        "the mailbox is over quota.\n\n---- START OF RETURNED MESSAGE ----\n",
        [("a@away.test", None, None, "failed")],
    ),
    (
        "text",
        DAEMON,
        "The email below could not be delivered to the following user:\n\n<a@away.test>\n\nOriginal message:\n",
        [("a@away.test", None, None, "failed")],
    ),
    (
        "text",
        "From: postmaster@relay.test",
        """The message that you sent was undeliverable to the following:
	a@away.test (user not found)

Possibly truncated original message follows:
""",
        [("a@away.test", None, None, "failed")],
    ),
    (
        "text",
        "From: Mail Administrator <Postmaster@relay.test>",
        """This Message was undeliverable due to the following reason:

Each of the following recipients was rejected by a remote mail server.
The reasons given by the server are included to help you determine why
each recipient was rejected.

    Recipient: <a@away.test>
    Reason:    5.1.1 <a@away.test>... User unknown

    Recipient: <b@away.test>
    Reason:    5.2.2 <b@away.test>... full

Please reply to <Postmaster@relay.test>
if you feel this message to be in error.
""",
        [("a@away.test", "5.1.1", None, "failed"), ("b@away.test", "5.2.2", None, "failed")],
    ),
    (
        "text",
        DAEMON,
        """   ----- The following addresses had delivery problems -----
a@away.test

   ----- Non-delivered information -----
The number of messages in recipient's mailbox exceeded the local limit.
""",
        [("a@away.test", None, None, "failed")],
    ),
    (
        "text",
        DAEMON,
        "Delivery to the following recipients was aborted after 2.3 second(s):\n\n  * a@away.test\n  * b@away.test\n",
        [("a@away.test", None, None, "failed"), ("b@away.test", None, None, "failed")],
    ),
    (
        "text",
        "From: postmaster@relay.test",
        "Die folgende Nachricht konnte nicht zugestellt werden:\n\na@away.test: 550 5.1.1 unbekannt\n",
        [("a@away.test", "5.1.1", 550, "failed")],
    ),
    (
        "text",
        DAEMON,
        "The e-mail address a@away.test does not exist, and so your message was not delivered.\n",
        [("a@away.test", None, None, "failed")],
    ),
    (
        "text",
        DAEMON,
        "Failed to deliver to '<a@away.test>'\nSMTP module(domain away.test) reports:\n 550 5.1.1 user unknown\n",
        [("a@away.test", "5.1.1", 550, "failed")],
    ),
    (
        "text",
        DAEMON,
        "Message could not be delivered to mobile.\nError: No valid recipients for this MM\n\nOriginal Message:\n"
        "From: Writer <writer@desk.test>\nTo: a@away.test\nSubject: lunch\nDate: Mon, 23 Nov 2026 16:32:30 +0000\n",
        [("a@away.test", None, None, "failed")],
    ),
]  # fmt: skip


def message(header: str, words: str, subject: str = "failure notice") -> bytes:
    return f"{header}\nTo: writer@desk.test\nSubject: {subject}\n\n{words}".encode()


def summary(notice: Notice) -> list[tuple[str, str | None, int | None, str]]:
    return [
        (row["final_recipient"], row["enhanced_code"], row["reply_code"], str(row["action"]))
        for row in notice.rows
    ]


@pytest.mark.parametrize(
    ("family", "header", "words", "expected"),
    [pytest.param(*case, id=f"{number}-{case[0]}") for number, case in enumerate(FAMILIES)],
)
def test_families(
    family: str, header: str, words: str, expected: list[tuple[str, str | None, int | None, str]]
) -> None:
    """Every recipient is found and none invented, whatever the message that came back names."""
    ends_with_message = not words.rstrip().endswith("+0000")
    notice = read_notice(message(header, words + (RETURNED if ends_with_message else "")))
    assert summary(notice) == expected
    assert {row["form"] for row in notice.rows} == {family}
    assert notice.kind is (MailKind.DELAY if expected[0][3] == Action.DELAYED else MailKind.DSN)


def test_who_speaks() -> None:
    """The words name the program that wrote them, and the server whose reply they quote."""
    (first, second) = read_notice(message(*FAMILIES[0][1:3])).rows
    assert (first["reporting_mta"], second["remote_mta"]) == ("relay.test", None)
    (row, own) = read_notice(message(*FAMILIES[1][1:3])).rows
    assert (row["remote_mta"], own["remote_mta"]) == ("mx.away.test", None)


def test_sender_and_addressee_are_no_recipients() -> None:
    """Addresses of the notice's own header are not taken for recipients, unless somebody wrote to themselves."""
    words = "The following address failed:\n\n<writer@desk.test>:\nmailbox full\n"
    assert summary(read_notice(message(DAEMON, words))) == [("writer@desk.test", None, None, "failed")]
    words += "<a@away.test>:\nmailbox full\n"
    assert summary(read_notice(message(DAEMON, words))) == [("a@away.test", None, None, "failed")]


def test_words_of_nobody() -> None:
    """A notice whose words name no recipient is counted as such, and nobody is made up."""
    notice = read_notice(message(DAEMON, "Your message was rejected. Ask <postmaster@relay.test>.\n"))
    assert (notice.kind, notice.rows, notice.detail) == (MailKind.DSN, (), "a notice that names no recipient")


def test_words_in_html() -> None:
    """Words that come as HTML alone are read without their tags, styles and scripts."""
    page = "<html><style>a@b.test</style><p>Delivery failed to:<br>&lt;a@away.test&gt;<td>550 5.1.1 unknown</html>"
    notice = read_notice(f"{DAEMON}\nSubject: failure\nContent-Type: text/html\n\n{page}".encode())
    assert summary(notice) == [("a@away.test", "5.1.1", 550, "failed")]


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=300), st.sampled_from([words for _, _, words, _ in FAMILIES]), st.text(max_size=300))
def test_any_words(before: str, words: str, behind: str) -> None:
    """Any words are read; what is found is written in them."""
    text = before + words + behind
    for row in read_notice(message(DAEMON, text)).rows:
        assert row["final_recipient"] in text
