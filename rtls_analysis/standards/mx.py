"""Finding the servers of a domain: MX, implicit MX, null MX (RFC 5321 §5.1, RFC 7505)."""

from __future__ import annotations

from enum import StrEnum


class MxState(StrEnum):
    """What the MX lookup of a domain, or the address lookup of one of its hosts, amounts to."""

    MX = "mx"
    IMPLICIT_MX = "implicit_mx"  # no MX record, but an address
    NULL_MX = "null_mx"
    NULL_MX_WITH_OTHERS = "null_mx_with_others"
    NO_MAIL = "no_mail"  # neither MX nor address
    NXDOMAIN = "nxdomain"
    DNS_FAILURE = "dns_failure"
    BAD_NAME = "bad_name"  # not looked up
    MX_IS_ADDRESS = "mx_is_address"
    MX_NO_ADDRESS = "mx_no_address"
    MX_SPECIAL_ADDRESS = "mx_special_address"  # all its addresses are special and not allowed
    MX_IS_CNAME = "mx_is_cname"
