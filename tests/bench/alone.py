"""The engines without Atrium around them: the baselines of the model benchmarks.

Runs as its own process, answers one JSON line for each JSON line it reads, so that
a benchmark can take turns between this and the suite:

    python tests/bench/alone.py text CATALOGUE MODELS_DIR MODEL
        {"callers": 4, "max_tokens": 64, "prompt": "..."} -> {"tokens": 256, "seconds": 1.9}
    python tests/bench/alone.py speech MODEL_FOLDER THREADS
        {"path": "speech.wav"} -> {"seconds": 1.2, "text": "..."}
    python tests/bench/alone.py synthesis CATALOGUE MODELS_DIR MODEL VOICE
        {"callers": 4, "sentences": ["...", "..."]}
        -> {"seconds": 9.1, "audio": 11.8, "first": [0.9, 1.8, ...], "sentences": [1.6, 1.3]}
"""

import asyncio
import json
import sys
import time
from pathlib import Path


async def _text(catalogue: str, models_dir: str, model: str) -> None:
    from atrium_common.catalogue import Catalogue
    from atrium_common.weights import WeightStore
    from atrium_llm.domain import ChatInput, ChatMessage, GenerationJob, Role, Sampling, TextPart
    from atrium_llm.engines.transformers import TransformersEngine

    entry = next(e for e in Catalogue.load(Path(catalogue)).for_service("llm") if e.id == model)
    engine = TransformersEngine([entry], store=WeightStore(Path(models_dir)))
    await engine.load()
    print(json.dumps({"ready": True}), flush=True)

    async def one(prompt: str, max_tokens: int) -> int:
        message = ChatMessage(role=Role.USER, content=[TextPart(prompt)])
        job = GenerationJob(
            model=model,
            input=ChatInput(messages=[message]),
            sampling=Sampling(max_tokens=max_tokens, min_tokens=max_tokens, temperature=0.0),
        )
        tokens = 0
        async for event in engine.generate(job):
            tokens = event.usage.output_tokens
        return tokens

    while line := await asyncio.to_thread(sys.stdin.readline):
        plan = json.loads(line)
        start = time.perf_counter()
        counts = await asyncio.gather(
            *(one(plan["prompt"], plan["max_tokens"]) for _ in range(plan["callers"]))
        )
        seconds = time.perf_counter() - start
        print(json.dumps({"tokens": sum(counts), "seconds": seconds}), flush=True)
    await engine.close()


def _speech(folder: str, threads: str) -> None:
    from faster_whisper import WhisperModel

    model = WhisperModel(folder, device="cpu", compute_type="int8", cpu_threads=int(threads))
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        start = time.perf_counter()
        segments, _ = model.transcribe(
            json.loads(line)["path"],
            vad_filter=True,
            condition_on_previous_text=False,
        )
        text = "".join(segment.text for segment in segments)
        print(json.dumps({"seconds": time.perf_counter() - start, "text": text}), flush=True)


async def _synthesis(catalogue: str, models_dir: str, model: str, voice_id: str) -> None:
    from atrium_common.catalogue import Catalogue
    from atrium_common.weights import WeightStore
    from atrium_tts.domain import SpeakRequest
    from atrium_tts.engines import open_engine

    entry = next(e for e in Catalogue.load(Path(catalogue)).for_service("tts") if e.id == model)
    engine = open_engine(entry.engine, [entry], store=WeightStore(Path(models_dir)))
    await engine.load()
    voice = next(each for each in engine.voices() if each.id == voice_id)
    rate = engine.sample_rate(model)
    turn = asyncio.Semaphore(engine.scheduling.slots)
    print(json.dumps({"ready": True}), flush=True)

    async def one(sentences: list[str], began: float) -> tuple[float, list[float]]:
        """Seconds to the first audio, and of audio in each sentence."""
        first, lengths = 0.0, []
        for sentence in sentences:
            request = SpeakRequest(
                model=model, voice=voice, text=sentence, language=voice.languages[0]
            )
            samples = 0
            async with turn:
                async for piece in engine.speak(request):
                    first = first or time.perf_counter() - began
                    samples += len(piece)
            lengths.append(samples / rate)
        return first, lengths

    while line := await asyncio.to_thread(sys.stdin.readline):
        plan = json.loads(line)
        began = time.perf_counter()
        done = await asyncio.gather(
            *(one(plan["sentences"], began) for _ in range(plan["callers"]))
        )
        answer = {
            "seconds": time.perf_counter() - began,
            "audio": sum(sum(lengths) for _, lengths in done),
            "first": [first for first, _ in done],
            "sentences": done[0][1],
        }
        print(json.dumps(answer), flush=True)
    await engine.close()


if __name__ == "__main__":
    kind, *arguments = sys.argv[1:]
    if kind == "text":
        asyncio.run(_text(*arguments))
    elif kind == "synthesis":
        asyncio.run(_synthesis(*arguments))
    else:
        _speech(*arguments)
