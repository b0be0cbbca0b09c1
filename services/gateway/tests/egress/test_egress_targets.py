"""Addresses are read strictly, and only hosts that the operator lists are meant."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atrium_gateway.egress.targets import Target, allowed, read_host_rule, read_target
from atrium_gateway.settings import GatewaySettings


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("http://example.com", Target("http", "example.com", 80, "/")),
        ("HTTPS://Example.COM./a?b=c#d", Target("https", "example.com", 443, "/a?b=c")),
        ("https://example.com:8443?x", Target("https", "example.com", 8443, "/?x")),
        ("http://[2001:DB8:0::1]:8080/a", Target("http", "2001:db8::1", 8080, "/a")),
        ("http://1.2.3.4/", Target("http", "1.2.3.4", 80, "/")),
        ("http://a_b.example.com/%20", Target("http", "a_b.example.com", 80, "/%20")),
        ("http://localhost./", Target("http", "localhost", 80, "/")),
    ],
)
def test_an_address_is_read(url, target):
    assert read_target(url) == target
    assert read_target(target.url) == target


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "gopher://example.com/_GET",
        "ftp://example.com/a.png",
        "data:image/png;base64,AAAA",
        "javascript:alert(1)",
        "//example.com/a",
        "http:example.com",
        "http:///example.com",
        "http://",
        "",
        "http://user@example.com/",
        "http://user:word@example.com/",
        "http://example.com@127.0.0.1/",
        "http://example.com%40127.0.0.1/",
        "http://127.0.0.1\\@example.com/",
        "http://example.com\\.evil.test/",
        "http://exam ple.com/",
        "http://example.com/a b",
        "http://example.com/\r\nHost: evil",
        "http://example.com\t/",
        "http://example.com\x00.evil.test/",
        "http://exämple.com/",
        "http://example。com/",
        "http://example.com:/",
        "http://example.com:0/",
        "http://example.com:65536/",
        "http://example.com:80:80/",
        "http://example.com:8o/",
        "http://example..com/",
        "http://.example.com/",
        "http://-example.com/",
        "http://127.1/",
        "http://2130706433/",
        "http://0x7f000001/",
        "http://0x7f.0.0.1/",
        "http://0177.0.0.1/",
        "http://127.0.0.0x1/",
        "http://1.2.3.4.5/",
        "http://256.1.1.1/",
        "http://0x/",
        "http://[::1/",
        "http://[::1]evil/",
        "http://[fe80::1%25eth0]/",
        "http://[v1.fe80]/",
        "http://[127.0.0.1]/",
        "http://" + "a" * 64 + ".com/",
        "http://example.com/" + "a" * 9000,
    ],
)
def test_what_can_be_read_in_two_ways_or_is_no_web_address_is_none(url):
    assert read_target(url) is None


@given(st.text(st.characters(codec="ascii"), max_size=60))
def test_any_text_is_read_or_refused_and_what_was_read_stays_the_same(text):
    for url in (text, f"http://{text}", f"http://{text}/", f"https://example.com{text}"):
        target = read_target(url)
        if target is not None:
            assert read_target(target.url) == target
            assert 1 <= target.port <= 65535


RULES = [
    read_host_rule(text)
    for text in ("example.com", "*.Cdn.test", "store.test:9000", "[2001:db8::1]", "10.0.0.7:80")
]


@pytest.mark.parametrize(
    ("url", "answer"),
    [
        ("http://example.com/", True),
        ("https://example.com/", True),
        ("https://EXAMPLE.com.:443/", True),
        ("http://example.com:443/", False),
        ("https://example.com:8443/", False),
        ("http://www.example.com/", False),
        ("http://example.com.evil.test/", False),
        ("http://evilexample.com/", False),
        ("http://a.cdn.test/", True),
        ("http://a.b.cdn.test/", True),
        ("http://cdn.test/", False),
        ("http://acdn.test/", False),
        ("http://store.test:9000/", True),
        ("https://store.test:9000/", True),
        ("http://store.test/", False),
        ("http://[2001:db8:0:0::1]/", True),
        ("http://10.0.0.7/", True),
        ("https://10.0.0.7/", False),
    ],
)
def test_a_host_is_allowed_as_it_is_listed_and_at_its_port_alone(url, answer):
    target = read_target(url)
    assert target is not None
    assert allowed(target, RULES) is answer


@pytest.mark.parametrize(
    "text",
    ["", "*", "*.", "*.*.test", "a.*", "http://a.test", "a.test/x", "u@a", "127.1", "*.1.2.3.4"],
)
def test_the_operators_list_is_read_strictly_too(text):
    with pytest.raises(ValueError):  # noqa: PT011 - pydantic shows whatever it says
        read_host_rule(text)
    with pytest.raises(ValueError):  # noqa: PT011
        GatewaySettings(fetch_hosts=(text,))


def test_nothing_is_fetched_unless_hosts_are_listed(monkeypatch):
    assert GatewaySettings().egress_rules() is None
    monkeypatch.setenv("ATRIUM_GATEWAY_FETCH_HOSTS", '["*.example.com", "store:9000"]')
    monkeypatch.setenv("ATRIUM_GATEWAY_FETCH_PRIVATE_NETWORKS", '["10.1.0.0/16"]')
    rules = GatewaySettings().egress_rules()
    assert rules is not None
    assert [(rule.host, rule.below, rule.port) for rule in rules.hosts] == [
        ("example.com", True, None),
        ("store", False, 9000),
    ]
    assert [str(network) for network in rules.private] == ["10.1.0.0/16"]
    with pytest.raises(ValueError, match="fetch_private_networks"):
        GatewaySettings(fetch_private_networks=("10.1.0.1/16",))
