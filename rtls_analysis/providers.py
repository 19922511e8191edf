"""Who runs an MX host: its registrable domain, through a small map of names that belong together.

The map joins names under which one operator runs its MX hosts; it does not look behind gateways, and it does not
guess at owners of companies. A name that is not in it is its own provider.
"""

from __future__ import annotations

from functools import lru_cache

from rtls_analysis.standards.names import registrable_domain

ALIASES = {
    "googlemail.com": "google.com",
    "psmtp.com": "google.com",
    "mx.microsoft": "outlook.com",
    "hotmail.com": "outlook.com",
    "office365.us": "outlook.com",
    "frontbridge.com": "outlook.com",
    "ppe-hosted.com": "pphosted.com",
    "gpphosted.com": "pphosted.com",
    "mimecast-offshore.com": "mimecast.com",
    "mimecast.co.za": "mimecast.com",
    "messagelabs.net": "messagelabs.com",
    "yahoodns.net": "yahoo.com",
    "yandex.net": "yandex.ru",
    "me.com": "icloud.com",
    "zoho.eu": "zoho.com",
    "zohomail.com": "zoho.com",
    "kundenserver.de": "ionos.com",
    "1and1.com": "ionos.com",
    "1and1.co.uk": "ionos.com",
    "ionos.de": "ionos.com",
    "ionos.co.uk": "ionos.com",
    "ionos.es": "ionos.com",
    "ionos.fr": "ionos.com",
    "secureserver.net": "godaddy.com",
    "rzone.de": "strato.de",
    "hostedemail.com": "tucows.com",
    "barracudanetworks.com": "barracuda.com",
    "cudaops.com": "barracuda.com",
    "iphmx.com": "cisco.com",
    "trendmicro.eu": "trendmicro.com",
    "antispamcloud.com": "n-able.com",
    "spamexperts.com": "n-able.com",
    "messagingengine.com": "fastmail.com",
    "mailspamprotection.com": "siteground.com",
    "b-one.net": "one.com",
    "transip.email": "transip.nl",
    "infomaniak.com": "infomaniak.ch",
}
"""Registrable domain of an MX host -> the name of its provider."""


@lru_cache(maxsize=10_000)
def provider_of(host: str) -> str:
    """Name the provider of an MX host: its registrable domain, or what `ALIASES` says of that.

    >>> provider_of("alt1.gmail-smtp-in.l.google.com"), provider_of("mx.googlemail.com")
    ('google.com', 'google.com')
    """
    domain = registrable_domain(host)
    return ALIASES.get(domain, domain)
