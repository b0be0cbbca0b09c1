"""`python -m atrium_gateway`: settings -> core -> REST, admission and metrics servers."""

import asyncio
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from datetime import UTC, datetime, timedelta

import uvloop
from prometheus_client import CollectorRegistry, start_http_server
from pydantic import ValidationError
from uuid_utils import uuid7

from atrium_common.errors import AtriumError
from atrium_common.interceptors.tracing import Tracing
from atrium_common.logs import configure_logging
from atrium_common.metrics import make_metrics
from atrium_common.telemetry.setup import tracing
from atrium_common.telemetry.spans import find_tracer
from atrium_common.tls import ClientTls
from atrium_gateway.administration.keeper import keeping_order
from atrium_gateway.admission_server import serving_admission
from atrium_gateway.app import create_app
from atrium_gateway.auth.networks import read_networks
from atrium_gateway.collector import settle_collector
from atrium_gateway.core import open_core
from atrium_gateway.deps import Gateway
from atrium_gateway.egress.fetcher import UrlFetcher
from atrium_gateway.idempotency.keeper import Keeper
from atrium_gateway.live import LiveLimits, LiveSessions
from atrium_gateway.middleware.access_log import AccessLog
from atrium_gateway.middleware.body_limit import BodyLimits
from atrium_gateway.observability.process import show_process
from atrium_gateway.pipeline import Pipeline
from atrium_gateway.rest_server import RestServer, server_config
from atrium_gateway.settings import GatewaySettings
from atrium_gateway.upstreams.fleet import open_fleet


class _Server(RestServer):
    """A server that leaves signals to us: the ledger is closed after it, in order."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Stops the server on SIGTERM and SIGINT, without raising them again."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.handle_exit, number, None)
        yield


async def run(settings: GatewaySettings) -> None:
    """Serves until SIGTERM or SIGINT, then drains and closes the books."""
    if settings.service_credential is None:
        raise AtriumError("ATRIUM_SERVICE_CREDENTIAL is not set")
    credential = settings.service_credential.get_secret_value()
    catalogue = settings.open_catalogue()
    registry = CollectorRegistry()
    access_log = AccessLog(sys.stdout.buffer, console=settings.log_format == "console")
    async with AsyncExitStack() as stack:
        provider = stack.enter_context(tracing("gateway"))
        core = await stack.enter_async_context(open_core(settings, catalogue=catalogue))
        metrics = make_metrics(registry)
        await stack.enter_async_context(
            serving_admission(core, settings, metrics=metrics, tracing=Tracing(provider))
        )
        fleet = await stack.enter_async_context(
            open_fleet(
                llm_target=settings.llm_target,
                stt_target=settings.stt_target,
                tts_target=settings.tts_target,
                text2image_target=settings.text2image_target,
                img2img_target=settings.img2img_target,
                img2text_target=settings.img2text_target,
                service_credential=credential,
                tls=client_tls(settings),
            )
        )
        show_process(metrics, core, fleet.watches)
        await stack.enter_async_context(
            keeping_order(
                core.administration,
                voices=fleet.tts if catalogue.for_service("tts") else None,
                exports_kept=timedelta(days=settings.exports_days),
            )
        )
        rules = settings.egress_rules()
        pipeline = Pipeline(core.admission)
        stack.push_async_callback(pipeline.drain)
        keeper = Keeper(core.answers, registry=registry, new_id=lambda: str(uuid7()))
        stack.callback(access_log.flush)
        gateway = Gateway(
            authenticator=core.authenticator,
            pipeline=pipeline,
            catalogue=catalogue,
            llm=fleet.llm,
            stt=fleet.stt,
            tts=fleet.tts,
            text2image=fleet.text2image,
            img2img=fleet.img2img,
            img2text=fleet.img2text,
            services=fleet.watches,
            reports=core.reports,
            administration=core.administration,
            standing=core.standing,
            now=lambda: datetime.now(UTC),
            live=LiveSessions(live_limits(settings)),
            max_picture_bytes=settings.max_picture_bytes,
            fetcher=UrlFetcher(rules, registry=registry) if rules else None,
            idempotency=keeper,
        )
        app = create_app(
            gateway,
            limits=BodyLimits(
                body_bytes=settings.max_body_bytes,
                upload_bytes=settings.max_upload_bytes,
                picture_body_bytes=settings.max_picture_body_bytes,
            ),
            registry=registry,
            access_log=access_log,
            cors_origins=settings.cors_origins,
            trusted_proxies=read_networks(settings.trusted_proxies),
            tracer=find_tracer(provider),
        )
        scraped, _ = start_http_server(settings.metrics_port, settings.metrics_host, registry)
        stack.callback(scraped.server_close)
        stack.callback(scraped.shutdown)
        listener = socket.create_server((settings.host, settings.port), backlog=2048)
        settle_collector()
        config = server_config(app, drain_seconds=settings.drain_seconds)
        await _Server(config, drain=gateway.live.drain).serve(sockets=[listener])


def client_tls(settings: GatewaySettings) -> ClientTls | None:
    """What the gateway shows to the services; ``None`` speaks plaintext."""
    if settings.tls_certificate is None and settings.tls_client_ca is None:
        return None
    return ClientTls(
        ca=settings.tls_client_ca, certificate=settings.tls_certificate, key=settings.tls_key
    )


def live_limits(settings: GatewaySettings) -> LiveLimits:
    """What a session of live transcription may take."""
    return LiveLimits(
        sessions=settings.live_sessions,
        session_seconds=settings.live_session_seconds,
        idle_seconds=settings.live_idle_seconds,
    )


def main() -> None:
    """Runs the process; what is wrong with its settings is one line on stderr."""
    try:
        settings = GatewaySettings()
        configure_logging("gateway", level=settings.log_level, format=settings.log_format)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(run(settings))
    except (AtriumError, ValidationError, OSError) as err:
        sys.exit(f"atrium gateway: {err}")


if __name__ == "__main__":
    main()
