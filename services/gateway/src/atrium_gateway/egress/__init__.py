"""Fetching what callers name by its address, so that it can't be turned against the operator.

`targets` reads addresses and knows the hosts that are allowed, `addresses` which of the
network's addresses may be reached, `names` resolves and connects, `fetcher` does it all by
the operator's `rules`.
"""
