"""`python -m atrium_common.probe`: asks the service of this container by `grpc.health.v1`.

The images' HEALTHCHECK calls it, and with ``--ready`` whoever waits for the service. It
reads the variables that the service itself reads; ``ATRIUM_SERVICE`` names the service.
"""

import os
import socket
import ssl
import sys

import grpc

from atrium_common.probing import ProbeError, Question, local_target, run, variable

PORTS = {
    "text2image": "7860",
    "tts": "7861",
    "stt": "7862",
    "img2img": "7863",
    "img2text": "7864",
    "llm": "7865",
}
"""The defaults of the services' settings; a test holds them together."""
_CHECK = "/grpc.health.v1.Health/Check"
_WHOLE_SERVER = b""
"""A HealthCheckRequest that names no service: the message has no field then."""
_SERVING = b"\x08\x01"
"""A HealthCheckResponse with the status SERVING, as protobuf writes it."""


def main() -> int:
    """Returns 0 where the service answers (``--ready``: and takes work), else 1."""
    return run(ask)


def ask(question: Question) -> None:
    """Asks once.

    Raises:
        ProbeError: It does not answer, or is not ready.
        OSError: A certificate can't be read, or the port is closed.
    """
    service = os.environ.get("ATRIUM_SERVICE", "")
    if service not in PORTS and question.target is None:
        raise ProbeError(f"ATRIUM_SERVICE={service!r} is not one of {', '.join(PORTS)}")
    prefix = f"ATRIUM_{service.upper()}_"
    target = question.target or local_target(prefix=prefix, port=PORTS.get(service, ""))
    with _open(target, prefix, question.seconds) as channel:
        check = channel.unary_unary(_CHECK, bytes, bytes)
        try:
            answer = check(_WHOLE_SERVER, timeout=question.seconds)
        except grpc.RpcError as err:
            raise ProbeError(f"{target} does not answer: {err.code().name}") from err
    if question.ready and answer != _SERVING:
        raise ProbeError(f"{target} is not ready")


def _open(target: str, prefix: str, seconds: float) -> grpc.Channel:
    certificate = variable("tls_certificate", prefix=prefix)
    key = variable("tls_key", prefix=prefix)
    if not certificate:
        return grpc.insecure_channel(target)
    with open(certificate, "rb") as chain, open(key, "rb") as secret:
        pem, private = chain.read(), secret.read()
    # The service's own certificate is all that the probe trusts, and what it shows.
    credentials = grpc.ssl_channel_credentials(pem, private, pem)
    name = _name_in(target, certificate, key, seconds)
    return grpc.secure_channel(target, credentials, [("grpc.ssl_target_name_override", name)])


def _name_in(target: str, certificate: str, key: str, seconds: float) -> str:
    """Returns a name that the certificate is for: gRPC demands one, and loopback is none."""
    context = ssl.create_default_context(cafile=certificate)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.load_cert_chain(certificate, key)
    context.set_alpn_protocols(["h2"])
    host, _, port = target.rpartition(":")
    with (
        socket.create_connection((host.strip("[]"), int(port)), seconds) as plain,
        context.wrap_socket(plain) as secured,
    ):
        shown = secured.getpeercert() or {}
    names = [str(name[1]) for name in shown.get("subjectAltName", ()) if name[0] == "DNS"]
    if not names:
        raise ProbeError(f"{certificate} names no host")
    return names[0].replace("*", "probe")


if __name__ == "__main__":
    sys.exit(main())
