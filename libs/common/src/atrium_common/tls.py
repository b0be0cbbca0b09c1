"""Certificates of servers and clients, read from PEM files.

Used by `server.py` for its port and by `channels.py` for calls to a TLS server.
"""

from dataclasses import dataclass
from pathlib import Path

import grpc


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerTls:
    """What a server shows and asks for.

    Attributes:
        certificate: PEM chain of the server.
        key: PEM key of `certificate`.
        client_ca: PEM CA that client certificates must come from; ``None`` asks
            clients for no certificate.
    """

    certificate: Path
    key: Path
    client_ca: Path | None = None

    def credentials(self) -> grpc.ServerCredentials:
        """Reads the files; `OSError` if one can't be read."""
        return grpc.ssl_server_credentials(
            [(self.key.read_bytes(), self.certificate.read_bytes())],
            root_certificates=self.client_ca.read_bytes() if self.client_ca else None,
            require_client_auth=self.client_ca is not None,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientTls:
    """What a client trusts and shows.

    Attributes:
        ca: PEM CA of the server's certificate; ``None`` trusts the public ones.
        certificate: PEM chain to show to the server, for mTLS.
        key: PEM key of `certificate`.
        server_name: Name that the server's certificate must have where it differs
            from the target's.
    """

    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    server_name: str | None = None

    def credentials(self) -> grpc.ChannelCredentials:
        """Reads the files; `OSError` if one can't be read."""
        return grpc.ssl_channel_credentials(
            root_certificates=self.ca.read_bytes() if self.ca else None,
            private_key=self.key.read_bytes() if self.key else None,
            certificate_chain=self.certificate.read_bytes() if self.certificate else None,
        )
