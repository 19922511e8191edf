"""One colour per word, the same in every plot, told apart by colour-blind readers.

The anchors are those of Okabe and Ito (2008). What stands side by side in one plot differs in hue and lightness, also
as readers with protanopia, deuteranopia or tritanopia see it (the tests simulate them). What could not be told is grey
and hatched, what was not tested paler and dotted: neither is ever the colour of a no.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping
from typing import Any

from rtls_analysis.outcomes import Obstacle

GREEN, LIME, TEAL, PALE_TEAL = "#009e73", "#a6d854", "#3f8f8f", "#8fd0c4"
BLUE, SKY, PALE_BLUE, NAVY = "#0072b2", "#56b4e9", "#a9cbe8", "#2b4a6b"
ORANGE, VERMILION, CORAL, PEACH, BROWN = "#e69f00", "#d55e00", "#f0805a", "#ffbf86", "#6b2d00"
YELLOW, GOLD, OCHRE = "#f5e642", "#dfc022", "#b38a00"
OLIVE, DARK_OLIVE, SAND = "#afa548", "#6f6a2a", "#ded7a2"
PURPLE, VIOLET, LILAC, PINK, MAGENTA = "#5e1a7c", "#8c62a8", "#d5bfe3", "#bb6ea1", "#a3217f"
CHARCOAL, DARK_GREY, GREY, LIGHT_GREY, PALE_GREY = "#3d3d3d", "#6e6e6e", "#a6a6a6", "#d0d0d0", "#ececec"

READY = GREEN
REMAINING = BLUE
NOT_TOLD = LIGHT_GREY

_FAMILIES: Mapping[str, str] = {
    # what a reader hopes for, whole and in part
    GREEN: " yes all valid match usable secure completed sent delivered ok verified enforce dnssec mx dane gained "
    "certificate_valid",
    LIME: "some testing implicit_mx sent_unauthenticated mx_is_cname expanded",
    # a plain no
    ORANGE: "no none insecure no_record absent no_encryption IPv6",
    # the transport
    BROWN: "no_starttls starttls_not_supported SSLv3 connect_failed bad_signature mx_no_address",
    VERMILION: "failed tls_failed tls_handshake_failed fails TLSv1.0 lost mismatch requiretls_ready",
    CORAL: "starttls_refused",
    PEACH: "tls_too_old tls_version_too_low TLSv1.1 closed_early left",
    # the certificate
    YELLOW: "certificate_unverified no_certificate_match certificate_invalid at_risk delayed rate_limited",
    GOLD: "name_mismatch certificate_host_mismatch",
    OCHRE: "expired certificate_expired greylisted pkix",
    OLIVE: "dane_mismatch tlsa_invalid self_signed changed unusable protocol_error",
    DARK_OLIVE: "untrusted certificate_not_trusted",
    SAND: "validation_failure not_yet_valid",
    TEAL: "dnssec_invalid",
    PALE_TEAL: "dane_required",
    # the name of the MX host, and policies
    PURPLE: "sts_forbids_host sts_mx_mismatch blocked invalid weak_key mta_sts",
    VIOLET: "sts_policy_fetch_error multiple null_mx_with_others",
    MAGENTA: "sts_webpki_invalid",
    LILAC: "sts_policy_invalid malformed mx_is_address too_large",
    PINK: "mx_unauthenticated anonymous tlsrpt mx_special_address",
    # REQUIRETLS, and what is neither good nor bad
    SKY: "requiretls_not_offered requiretls_not_supported not_offered TLSv1.2 encrypted relayed entered redirect "
    "requiretls_offered",
    BLUE: "remaining kept trusted TLSv1.3 peer_requires_tls http_status starttls IPv4",
    PALE_BLUE: "not_requested content_type",
    NAVY: "local_policy",
    # no mail, and what could not be told, from the surest to the least sure
    CHARCOAL: "no_mx null_mx no_mail no_address",
    DARK_GREY: "dns_error dns_failure error not_tls nxdomain refused",
    GREY: "unreachable timeout undecided",
    LIGHT_GREY: "unknown",
    PALE_GREY: "not_tested not_applicable left_out bad_name address_refused opted_out not_sampled family_unavailable",
}

WORDS: Mapping[str, str] = {
    word: colour
    for colour, words in _FAMILIES.items()
    for word in words.split(" ")
    if word or colour == GREEN
}
"""The colour of each word of the vocabularies; the empty word, no obstacle, is that of what is ready."""

_HATCHES: Mapping[str, str] = {
    "////": "unknown undecided unreachable timeout dns_error dns_failure error refused",
    "....": "not_tested left_out address_refused opted_out not_sampled family_unavailable",
}
HATCHES: Mapping[str, str] = {word: hatch for hatch, words in _HATCHES.items() for word in words.split()}
"""The hatch of words that tell of no conclusion."""

OBSTACLES: Mapping[Obstacle, str] = {obstacle: WORDS[obstacle] for obstacle in Obstacle}
"""The colour of what stops a message; what could not be told is grey."""

_OTHERS = (BLUE, VERMILION, GREEN, PURPLE, OCHRE, SKY, BROWN, PINK, OLIVE, NAVY)


def colour_of(word: str) -> str:
    """Give the colour of a word; one that no vocabulary has always gets the same one of a few.

    >>> colour_of("tls_failed") == colour_of("failed"), colour_of("provider.example") == colour_of("provider.example")
    (True, True)
    """
    known = WORDS.get(str(word))
    return known if known is not None else _OTHERS[zlib.crc32(str(word).encode()) % len(_OTHERS)]


def colours_of(words: Iterable[str]) -> dict[str, str]:
    """Give words that no vocabulary has, such as providers, colours of their own, in turn; known words keep theirs."""
    unknown = [word for word in dict.fromkeys(map(str, words)) if word not in WORDS]
    turns = {word: _OTHERS[number % len(_OTHERS)] for number, word in enumerate(unknown)}
    return {str(word): WORDS.get(str(word)) or turns[str(word)] for word in words}


def bar_style(word: str) -> dict[str, Any]:
    """Give the look of a bar for a word: its colour, the hatch of what could not be told, its edge."""
    colour = colour_of(word)
    edge = GREY if colour == PALE_GREY else "white"
    return {"facecolor": colour, "hatch": HATCHES.get(str(word)), "edgecolor": edge, "linewidth": 0.5}


def readable_on(colour: str) -> str:
    """Give the colour of text on a ground of this colour: black or white, whichever is easier to read.

    >>> readable_on("#f5e642"), readable_on("#5e1a7c")
    ('black', 'white')
    """
    red, green, blue = (int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5))
    return "black" if 0.2126 * red**2.2 + 0.7152 * green**2.2 + 0.0722 * blue**2.2 > 0.18 else "white"
