"""Says before anything starts whether the services' models fit the cards.

The compose file's one-shot `preflight` runs ``python -m atrium_common.preflight``: everything
else waits for it, so that a box that is too small is told so in one table instead of by six
services that run out of memory one after the other.
"""
