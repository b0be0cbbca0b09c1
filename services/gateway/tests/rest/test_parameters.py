"""The parameter lists: complete against the official client, and the same in the docs."""

import re
from pathlib import Path

import httpx
from openai.types import (
    completion_create_params,
    embedding_create_params,
    image_edit_params,
    image_generate_params,
)
from openai.types.audio import (
    speech_create_params,
    transcription_create_params,
    translation_create_params,
)
from openai.types.chat import completion_create_params as chat_create_params

from atrium_gateway.api.parameters import PARAMETERS

DOCS = Path(__file__).parents[4] / "docs" / "api.md"
CLIENT = {
    "/v1/chat/completions": chat_create_params.CompletionCreateParamsBase,
    "/v1/completions": completion_create_params.CompletionCreateParamsBase,
    "/v1/embeddings": embedding_create_params.EmbeddingCreateParams,
    "/v1/audio/speech": speech_create_params.SpeechCreateParams,
    "/v1/audio/transcriptions": transcription_create_params.TranscriptionCreateParamsBase,
    "/v1/audio/translations": translation_create_params.TranslationCreateParams,
    "/v1/images/generations": image_generate_params.ImageGenerateParamsBase,
    "/v1/images/edits": image_edit_params.ImageEditParamsBase,
}


def test_every_parameter_of_the_official_client_stands_in_one_list():
    for path, params in CLIENT.items():
        lists = PARAMETERS[path]
        known = lists.honoured | lists.without_effect | lists.refused
        assert set(params.__annotations__) <= known, path
        assert not lists.honoured & lists.refused
        assert not lists.without_effect & (lists.honoured | lists.refused)


def test_docs_show_the_same_lists():
    text = DOCS.read_text()
    for path, lists in PARAMETERS.items():
        section = text.split(f"### `POST {path}`", 1)[1].split("\n### ", 1)[0]
        for title, names in (
            ("Honoured", lists.honoured),
            ("Without effect", lists.without_effect),
            ("Refused", lists.refused),
        ):
            (line,) = re.findall(rf"^- \*\*{title}:\*\* (.*)$", section, re.MULTILINE)
            assert set(re.findall(r"`([^`]+)`", line)) == set(names), (path, title)


async def test_refused_parameters_are_refused_by_name(rest):
    async with rest.client(await rest.key("parameters")) as client:
        for path in (
            "/v1/chat/completions",
            "/v1/completions",
            "/v1/embeddings",
            "/v1/images/generations",
            "/v1/images/edits",
        ):
            for name in PARAMETERS[path].refused | {"no_such_thing"}:
                reply = await client.post(path, json={name: 1})
                assert reply.status_code == 400
                assert reply.json()["error"]["param"] == name
                assert reply.json()["error"]["code"] == "unknown_parameter"


async def test_page_of_the_api_describes_what_is_served(rest):
    async with httpx.AsyncClient(base_url=rest.url) as client:
        docs = (await client.get("/docs")).text
        loaded = re.findall(r"""(?:src|href)=["']([^"']+)""", docs)
        assert "/docs/assets/swagger-ui-bundle.js" in loaded
        for address in loaded:  # from here, not from the internet
            assert (await client.get(address)).status_code == 200
        page = (await client.get("/openapi.json")).json()
    body = page["paths"]["/v1/chat/completions"]["post"]["requestBody"]["content"]
    name = body["application/json"]["schema"]["$ref"].rsplit("/", 1)[1]
    shown = set(page["components"]["schemas"][name]["properties"])
    lists = PARAMETERS["/v1/chat/completions"]
    assert shown == lists.honoured | lists.without_effect
    speech = page["paths"]["/v1/audio/speech"]["post"]["responses"]["200"]["content"]
    assert set(speech) == {"audio/*", "text/event-stream"}
    assert set(page["paths"]["/api/voices"]["post"]["responses"]) == {"201"}
    for path, operations in page["paths"].items():
        for described in operations.values():
            named = {p["name"] for p in described.get("parameters", ()) if p["in"] == "path"}
            assert named == set(re.findall(r"{(\w+)}", path))
    for ref in re.findall(
        r'"\$ref": ?"#/components/schemas/([^"]+)"', httpx.Response(200, json=page).text
    ):
        assert ref in page["components"]["schemas"]
