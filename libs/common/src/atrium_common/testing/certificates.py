"""A certificate authority for tests of TLS, and what it signed; needs `cryptography`."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


def write_certificates(folder: Path, *, server_name: str = "localhost") -> None:
    """Writes `ca`, `server` and `client`, each as ``.pem`` and ``.key``; valid for an hour.

    The server's is for ``localhost``, or for `server_name`.
    """
    now = datetime.now(UTC)
    names = {"ca": None, "server": server_name, "client": "client"}
    keys = {name: ec.generate_private_key(ec.SECP256R1()) for name in names}
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ca")])
    for name, host in names.items():
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(issuer)
            .public_key(keys[name].public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca=host is None, path_length=None), critical=True)
        )
        if host is not None:
            names_of = x509.SubjectAlternativeName([x509.DNSName(host)])
            builder = builder.add_extension(names_of, critical=False)
        certificate = builder.sign(keys["ca"], hashes.SHA256())
        (folder / f"{name}.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        (folder / f"{name}.key").write_bytes(
            keys[name].private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
