"""Puts a password that is kept by itself into the URL of a database or a Redis.

So that one secret file serves the server and the gateway alike; `settings.py` calls it.
"""

from urllib.parse import quote, urlsplit, urlunsplit

from pydantic import SecretStr


def with_password(url: str, password: SecretStr | None) -> str:
    """Returns `url` with `password` in it, escaped.

    Args:
        url: ``scheme://[user@]host...``.
        password: ``None`` leaves the URL as it is.

    Raises:
        ValueError: The URL holds a password already, or names no host that could ask for one.
    """
    if password is None:
        return url
    parts = urlsplit(url)
    user, at, host = parts.netloc.rpartition("@")
    if not host:
        raise ValueError("a password is set for a URL that names no host")
    if at and ":" in user:
        raise ValueError("the password is in the URL and set by itself, too; leave one out")
    netloc = f"{user}:{quote(password.get_secret_value(), safe='')}@{host}"
    return urlunsplit(parts._replace(netloc=netloc))
