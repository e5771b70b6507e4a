import pytest

from storagering.urls import redact_text, redact_url


def test_secrets_leave_urls() -> None:
    url = "https://user:pa55word@host:80/f.root?authz=abcdef&X-Amz-Signature=s1gnature&page=2#frag"
    assert redact_url(url) == "https://host:80/f.root?page=2"
    assert redact_url("/plain/path?token=x") == "/plain/path?token=x"
    shown = redact_text(f"cannot open {url}: authz=abcdef by user:pa55word", url)
    assert not any(secret in shown for secret in ("pa55word", "abcdef", "s1gnature"))


SECRET = "CANARYs3cr3t"


@pytest.mark.parametrize(
    "key",
    ["temp_url_sig", "sig", "jwt", "auth", "authz", "authorization", "pwd", "pass", "password", "macaroon",
     "access_key", "AWSAccessKeyId", "key", "api_key", "Policy", "sas", "cap.sym", "X-Amz-Signature", "token"],
)  # fmt: skip
def test_what_servers_call_secrets(key: str) -> None:
    url = f"root://server//f.root?page=2&{key}={SECRET}"
    assert redact_url(url) == "root://server//f.root?page=2"
    assert SECRET not in redact_text(f"cannot open {url} ({SECRET})", url)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (f"zip://a.root::http://me:{SECRET}@host/x.zip?token={SECRET}", "zip://a.root::http://host/x.zip"),
        (f"http://me:{SECRET}@[::1/x?token={SECRET}", "http://[::1/x"),
        ("http://[::1]:80/x", "http://[::1]:80/x"),
    ],
)
def test_chains_and_what_is_no_url(url: str, shown: str) -> None:
    assert redact_url(url) == shown
    assert SECRET not in redact_text(f"cannot open {url}", url)
