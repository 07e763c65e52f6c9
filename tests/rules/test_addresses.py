"""Which addresses webhooks may go to, as a table."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from treadle.rules.addresses import check_address

GLOBAL = ["1.1.1.1", "8.8.8.8", "93.184.216.34", "172.15.255.255", "172.32.0.1", "100.63.255.255", "100.128.0.0",
          "223.255.255.255", "2606:4700:4700::1111", "2a00:1450:4001:81b::200e",
          "::ffff:8.8.8.8", "64:ff9b::8.8.8.8", "2002:808:808::1"]
PRIVATE = ["10.0.0.1", "10.255.255.255", "172.16.0.1", "172.31.255.255", "192.168.1.1", "100.64.0.1",
           "100.127.255.255", "fc00::1", "fd12:3456:789a::1", "fd00:ec1:ffff::1", "fd00:ec3::1", "fec0::1",
           "::ffff:10.0.0.1", "::ffff:192.168.1.1", "64:ff9b::10.0.0.1", "64:ff9b::ac10:1", "2002:a00:1::1",
           "2002:c0a8:101::"]
LOOPBACK = ["127.0.0.1", "127.255.255.254", "::1", "::ffff:127.0.0.1", "64:ff9b::127.0.0.1", "2002:7f00:1::"]
NEVER = ["0.0.0.0", "0.1.2.3", "::", "169.254.0.1", "169.254.169.254", "::ffff:169.254.169.254",
         "64:ff9b::a9fe:a9fe", "2002:a9fe:a9fe::", "fe80::1", "fe80::1%eth0", "fd00:ec2::254", "fd00:ec2::23", "fd00:ec2::", "fd00:ec2:ffff:ffff:ffff:ffff:ffff:ffff",
         "fd20:ce::254",
         "100.100.100.200", "168.63.129.16", "192.0.0.192", "224.0.0.1", "239.255.255.255", "ff02::1",
         "240.0.0.1", "255.255.255.255", "192.0.2.1", "198.51.100.7", "203.0.113.9", "198.18.0.1", "192.0.0.8",
         "192.88.99.1", "2001:db8::1", "2001::1", "2001:0:4136:e378:8000:63bf:3fff:fdd2", "100::1", "::127.0.0.1",
         "::ffff:0:127.0.0.1", "64:ff9b:1::a00:1", "4000::1", "::ffff:0.0.0.0"]
NO_ADDRESS = ["", "localhost", "127.1", "0x7f000001", "2130706433", "1.2.3.4.5", "010.0.0.1", "[::1]", "1.1.1.1 "]


@pytest.mark.parametrize("allow_loopback", [False, True])
@pytest.mark.parametrize("allow_private", [False, True])
@pytest.mark.parametrize(
    ("ip", "kind"),
    [(ip, kind) for kind, ips in
     (("global", GLOBAL), ("private", PRIVATE), ("loopback", LOOPBACK), ("never", NEVER)) for ip in ips],
)
def test_addresses(ip: str, kind: str, allow_private: bool, allow_loopback: bool) -> None:
    """Global addresses are always allowed, private and loopback ones where told so, all others never."""
    allowed = {"global": True, "private": allow_private, "loopback": allow_loopback, "never": False}[kind]
    reason = check_address(ip, allow_private=allow_private, allow_loopback=allow_loopback)
    assert (reason is None) == allowed
    if reason is not None:
        assert ip in reason


@pytest.mark.parametrize("text", NO_ADDRESS)
def test_what_is_no_address_is_refused(text: str) -> None:
    """Names and the odd spellings that some resolvers accept are not addresses."""
    assert check_address(text, allow_private=True, allow_loopback=True) is not None


@pytest.mark.parametrize(
    ("ip", "words"),
    [("10.0.0.1", "a private address"), ("127.0.0.1", "a loopback address"),
     ("169.254.169.254", "a cloud metadata address"), ("169.254.1.1", "a link-local address"),
     ("::ffff:10.0.0.1", "a private address"), ("224.0.0.1", "a multicast address")],
)
def test_the_reason_says_what_the_address_is(ip: str, words: str) -> None:
    """A refusal names the address and its kind."""
    assert words in str(check_address(ip, allow_private=False, allow_loopback=False))


@given(st.ip_addresses())
def test_what_python_calls_not_global_is_never_allowed_by_default(ip: object) -> None:
    """The table lets nothing through that the registry of special addresses, as Python has it, holds back."""
    if not ip.is_global:  # type: ignore[attr-defined]
        assert check_address(str(ip), allow_private=False, allow_loopback=False) is not None


@given(st.ip_addresses(v=4))
def test_an_embedded_address_is_judged_like_itself(ip: object) -> None:
    """Mapped, NAT64 and 6to4 forms of an IPv4 address are allowed where it is, and only there."""
    number = int(ip)  # type: ignore[call-overload]
    forms = [f"::ffff:{ip}", f"64:ff9b::{ip}", f"2002:{number >> 16:x}:{number & 0xFFFF:x}::1"]
    for allow_private in (False, True):
        for allow_loopback in (False, True):
            plain = check_address(str(ip), allow_private=allow_private, allow_loopback=allow_loopback) is None
            for form in forms:
                allowed = check_address(form, allow_private=allow_private, allow_loopback=allow_loopback) is None
                assert allowed == plain
