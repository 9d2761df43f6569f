"""Which addresses may be sent weights and signatures."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from textnlp_fast.errors import InvalidInputError
from textnlp_fast.objectstore.endpoints import check_endpoint, is_loopback


@pytest.mark.parametrize(
    ("endpoint", "plain"),
    [
        ("https://storage.example", False),
        ("https://10.0.0.1:9000/account", False),
        ("http://127.0.0.1:10000/devstoreaccount1", True),
        ("http://127.9.9.9", True),
        ("http://[::1]:9000", True),
        ("http://localhost", True),
        ("HTTP://LOCALHOST:80", True),
    ],
)
def test_tells_whether_an_allowed_endpoint_is_plain(endpoint: str, plain: bool) -> None:
    assert check_endpoint(endpoint, allow_http=False) is plain


@pytest.mark.parametrize(
    "host",
    [
        *(
            "10.0.0.1",
            "storage.example",
            "127.0.0.1.example",
            "localhost.example",
            "0.0.0.0",
            "[::]",
            "2130706433",
        ),
        *("0x7f.0.0.1", "127.1", "[::ffff:10.0.0.1]", "127.0.0.1."),
    ],
)
def test_plain_http_to_another_machine_needs_the_flag(host: str) -> None:
    with pytest.raises(InvalidInputError, match="in clear") as caught:
        check_endpoint(f"http://{host}:9000", allow_http=False)
    assert "allow_http" in caught.value.hint
    assert check_endpoint(f"http://{host}:9000", allow_http=True)
    assert not check_endpoint(f"https://{host}:9000", allow_http=False)


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize(
    "where", ["user:verysecret@host", "verysecret@host", "host/?sig=verysecret", "host/#verysecret"]
)
def test_credentials_in_an_endpoint_are_refused_and_not_repeated(scheme: str, where: str) -> None:
    with pytest.raises(InvalidInputError, match="carries credentials") as caught:
        check_endpoint(f"{scheme}://{where}", allow_http=True)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "endpoint",
    [
        "",
        "host:9000",
        "//host",
        "ftp://host",
        "http://",
        "https://:443",
        "https://host:port",
        "https://[::1",
        "file:///x",
    ],
)
def test_what_is_no_endpoint_is_refused(endpoint: str) -> None:
    with pytest.raises(InvalidInputError, match="endpoint"):
        check_endpoint(endpoint, allow_http=True)


@given(st.ip_addresses())
def test_loopback_is_what_the_standard_says(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    network = ipaddress.ip_network("127.0.0.0/8") if address.version == 4 else ipaddress.ip_network("::1/128")
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    if mapped is None:
        assert is_loopback(str(address)) is (address in network)
