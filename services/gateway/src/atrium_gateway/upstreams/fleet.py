"""Opens the channels to all services; called by the composition root and tests."""

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from atrium_common.channels import open_channel
from atrium_common.tls import ClientTls
from atrium_gateway.upstreams import img2img, img2text, llm, stt, text2image, tts
from atrium_gateway.upstreams.calls import Credentials
from atrium_gateway.upstreams.health import ServiceWatch
from atrium_gateway.upstreams.img2img import ImageEditUpstream
from atrium_gateway.upstreams.img2text import ImageUnderstandingUpstream
from atrium_gateway.upstreams.llm import LlmUpstream
from atrium_gateway.upstreams.stt import SttUpstream
from atrium_gateway.upstreams.text2image import TextToImageUpstream
from atrium_gateway.upstreams.tts import TtsUpstream


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """The clients of the services, and the watches of their health by short name."""

    llm: LlmUpstream
    stt: SttUpstream
    tts: TtsUpstream
    text2image: TextToImageUpstream
    img2img: ImageEditUpstream
    img2text: ImageUnderstandingUpstream
    watches: Mapping[str, ServiceWatch]


@asynccontextmanager
async def open_fleet(
    *,
    llm_target: str,
    stt_target: str,
    tts_target: str,
    text2image_target: str,
    img2img_target: str,
    img2text_target: str,
    service_credential: str,
    tls: ClientTls | None = None,
) -> AsyncIterator[Fleet]:
    """Opens the channels and begins to watch; on leaving, closes all.

    A service that is down is no error: its calls are `Unavailable` until it is back.
    """
    credentials = Credentials(service_credential)
    async with AsyncExitStack() as stack:
        watches = {}
        channels = {}
        for name, target, service in (
            ("llm", llm_target, llm.SERVICE),
            ("stt", stt_target, stt.SERVICE),
            ("tts", tts_target, tts.SERVICE),
            ("text2image", text2image_target, text2image.SERVICE),
            ("img2img", img2img_target, img2img.SERVICE),
            ("img2text", img2text_target, img2text.SERVICE),
        ):
            channels[name] = open_channel(target, tls=tls, health_service=service)
            stack.push_async_callback(channels[name].close, None)
            # Its own channel: one that is health-checked lets no call through to a
            # service that is starting, and the watch wants to tell that from a dead one.
            plain = open_channel(target, tls=tls)
            stack.push_async_callback(plain.close, None)
            watches[name] = ServiceWatch(
                name, service, calls=channels[name], plain=plain, credentials=credentials
            )
            watches[name].start()
            stack.push_async_callback(watches[name].close)
        yield Fleet(
            llm=LlmUpstream(channels["llm"], credentials),
            stt=SttUpstream(channels["stt"], credentials),
            tts=TtsUpstream(channels["tts"], credentials),
            text2image=TextToImageUpstream(channels["text2image"], credentials),
            img2img=ImageEditUpstream(channels["img2img"], credentials),
            img2text=ImageUnderstandingUpstream(channels["img2text"], credentials),
            watches=watches,
        )


@asynccontextmanager
async def open_tts(
    target: str, *, service_credential: str, tls: ClientTls | None = None
) -> AsyncIterator[TtsUpstream]:
    """Opens the tts service alone, for what the command line asks of it."""
    channel = open_channel(target, tls=tls)
    try:
        yield TtsUpstream(channel, Credentials(service_credential))
    finally:
        await channel.close(None)
