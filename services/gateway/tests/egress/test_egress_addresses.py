"""Only public addresses may be reached, in whatever form they are written."""

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atrium_gateway.egress.addresses import reachable

PRIVATE_4 = [
    "0.0.0.0",  # noqa: S104 - that it is refused
    "0.1.2.3",
    "10.0.0.1",
    "100.64.0.1",
    "127.0.0.1",
    "127.255.255.254",
    "169.254.1.1",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.8",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.1.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.250",
    "240.0.0.1",
    "255.255.255.255",
]
PUBLIC_4 = ["1.1.1.1", "8.8.8.8", "93.184.216.34", "172.32.0.1", "223.255.255.254"]
FORMS = {
    "mapped": lambda value: IPv6Address((0xFFFF << 32) | value),
    "compatible": IPv6Address,
    "6to4": lambda value: IPv6Address((0x2002 << 112) | (value << 80) | 1),
    "teredo": lambda value: IPv6Address((0x20010000 << 96) | (value ^ 0xFFFFFFFF)),
    "nat64": lambda value: IPv6Address((0x64FF9B << 96) | value),
    "nat64 of its own": lambda value: IPv6Address((0x64FF9B0001 << 80) | value),
}
METADATA = ["169.254.169.254", "168.63.129.16", "100.100.100.200", "192.0.0.192", "fd00:ec2::254"]


@pytest.mark.parametrize("text", [*PUBLIC_4, "2606:2800:220:1:248:1893:25c8:1946"])
def test_public_addresses_may_be_reached(text):
    assert reachable(ip_address(text))


@pytest.mark.parametrize("text", PRIVATE_4)
def test_special_addresses_may_not_in_any_form(text):
    value = IPv4Address(text)
    assert not reachable(value)
    for name, form in FORMS.items():
        assert not reachable(form(int(value))), name


@pytest.mark.parametrize("text", PUBLIC_4)
def test_a_public_address_may_be_reached_in_the_forms_that_lead_to_it(text):
    value = int(IPv4Address(text))
    may = {name for name, form in FORMS.items() if reachable(form(value))}
    assert may == {"mapped", "nat64"}


@pytest.mark.parametrize(
    "text",
    [
        "::",
        "::1",
        "::ffff:0:7f00:1",
        "100::1",
        "2001:2::1",
        "2001:10::1",
        "2001:db8::1",
        "3fff::1",
        "5f00::1",
        "fc00::1",
        "fd12:3456::1",
        "fe80::1",
        "fe80::1%lo",
        "fec0::1",
        "ff02::1",
        "ff0e::1",
    ],
)
def test_special_ipv6_addresses_may_not(text):
    assert not reachable(ip_address(text))


@given(st.integers(0, 2**32 - 1), st.sampled_from(sorted(FORMS)))
def test_no_form_reaches_what_the_address_itself_may_not(value, form):
    if reachable(FORMS[form](value)):
        assert reachable(IPv4Address(value))


@given(st.integers(0, 2**128 - 1))
def test_what_is_not_global_unicast_is_never_reached(value):
    address = IPv6Address(value)
    if reachable(address):
        assert address in ip_network("2000::/3") or address.ipv4_mapped or value >> 96 == 0x64FF9B


def test_networks_that_are_listed_may_be_reached_and_no_others():
    private = [ip_network("10.1.0.0/16"), ip_network("fd12::/16")]
    assert reachable(ip_address("10.1.2.3"), private=private)
    assert reachable(ip_address("::ffff:10.1.2.3"), private=private)
    assert reachable(ip_address("fd12::1"), private=private)
    assert not reachable(ip_address("10.2.0.1"), private=private)
    assert not reachable(ip_address("127.0.0.1"), private=private)


@pytest.mark.parametrize("text", METADATA)
def test_where_clouds_keep_secrets_is_never_reached(text):
    everything = [ip_network("0.0.0.0/0"), ip_network("::/0")]
    assert not reachable(ip_address(text), private=everything)
    if "." in text:
        assert not reachable(ip_address(f"::ffff:{text}"), private=everything)
