"""Amounts of money are said in the order in which people say them."""

import pytest

from atrium_tts.engines.kokoro.money import spoken_money


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("It cost $3.50.", "It cost 3 dollars and 50 cents."),
        ("$1", "1 dollar"),
        ("$1.01, please", "1 dollar and 1 cent, please"),
        ("£0.99 each", "99 pence each"),
        ("€20.00!", "20 euros!"),
        ("about $1,250,000.", "about 1,250,000 dollars."),
        ("a $1.5 million house", "a 1.5 million dollars house"),
        ("$2bn or $40k", "2 billion dollars or 40 thousand dollars"),
        ("$5 back", "5 dollars back"),
        ("$0.125", "0.125 dollars"),
        ("version $1.2.3 stays", "version $1.2.3 stays"),
        ("US$ and 5$ stay", "US$ and 5$ stay"),
    ],
)
def test_money(written: str, said: str) -> None:
    assert spoken_money(written) == said
