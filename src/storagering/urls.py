"""URLs and messages without the secrets in them."""

from __future__ import annotations

import re
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit, urlunsplit

_SECRET_KEY = re.compile(
    r"^auth$|authz|authoriz|token|jwt|macaroon|secret|signature|(^|_)sig$|passw|^pass$|pwd|credential|policy|"
    r"(access|api)_?key|^key$|^sas$|^cap\.|^x-amz-|^x-goog-|^xrdcl\.",
    re.I,
)
_CHAIN = re.compile(r"::(?=[A-Za-z][\w+.-]*://)")
_URL = re.compile(r"[A-Za-z][\w+.-]*://[^\s'\"<>]+")


def redact_url(url: str) -> str:
    """The URL without user info and without tokens or signatures in its query; each one of a chain (``a::b``)."""
    if "://" not in url:
        return url
    if len(chain := _CHAIN.split(url)) > 1:
        return "::".join(map(redact_url, chain))
    try:
        parts = urlsplit(url)
    except ValueError:  # no proper URL, which opening it will tell
        return re.sub(r"//[^/@]*@", "//", url.partition("?")[0])
    query = urlencode([(k, v) for k, v in parse_qsl(parts.query, keep_blank_values=True) if not _SECRET_KEY.search(k)])
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, query, ""))


def redact_text(text: str, *urls: str) -> str:
    """``text`` with every mention of ``urls`` redacted: for messages of other libraries."""
    for url in urls:
        text = text.replace(url, redact_url(url))
        for secret in sorted(_secrets_of(url), key=len, reverse=True):
            text = text.replace(secret, "...")
    return text


def redact_urls_in(text: str) -> str:
    """``text`` with all URLs in it redacted, as those that a server redirects to."""
    return _URL.sub(lambda match: redact_url(match[0]), text)


def _secrets_of(url: str) -> set[str]:
    """What must not be shown of a URL, also as libraries quote it anew."""
    if "://" not in url:
        return set()
    if len(chain := _CHAIN.split(url)) > 1:
        return set[str]().union(*map(_secrets_of, chain))
    try:
        parts = urlsplit(url)
    except ValueError:
        return {url.partition("?")[2]} - {""}
    user, _, password = parts.netloc.rpartition("@")[0].partition(":")
    values = [v for k, v in parse_qsl(parts.query, keep_blank_values=True) if _SECRET_KEY.search(k)]
    found = {parts.query, parts.fragment, f"{user}:{password}", password, *values}
    found |= {unquote(f) for f in found} | {quote(unquote(f), safe="/+=") for f in found}
    return {f for f in found if len(f) > 3}
