"""Turns a GGUF file into a folder that transformers loads, once.

Some starter models come as one quantised GGUF file with weights, tokenizer and chat
template in it. The transformers engine calls `model_folder` before it loads; reading
the GGUF at every start would cost half a minute each time.
"""

import json
import logging
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

from atrium_common.catalogue import ModelEntry
from atrium_common.weights import WeightsError, WeightStore

_log = logging.getLogger(__name__)

_CACHE_NAME = "bf16-v1"
"""Raise the number when the conversion changes, so that old results are made anew."""


def model_folder(
    store: WeightStore, entry: ModelEntry, *, convert: Callable[[Path, Path], None] | None = None
) -> Path:
    """Returns a folder that transformers loads, converting a GGUF file the first time.

    Blocks: a conversion takes half a minute. It runs in a process of its own, so that
    its memory is given back and the caller's interpreter stays free. What it makes is kept
    in the store's cache: the weights themselves may be read-only.

    Args:
        store: Where the entry's files are.
        entry: The model.
        convert: Called with the GGUF file and an empty folder to fill; `convert_gguf` in a
            process of its own if none is given.

    Raises:
        WeightsError: The entry's files are not there, hold no weights, or can't be
            converted; or its licence was not accepted.
    """
    store.check_license(entry)
    source = store.locate(entry)
    if source is None:
        raise WeightsError(f"{entry.id} was not fetched yet", reason="MISSING_FILE")
    if any(source.glob("*.safetensors")) or any(source.glob("*.bin")):
        return source

    def build(weights: Path, target: Path) -> None:
        files = sorted(weights.glob("*.gguf"))
        if len(files) != 1:
            raise WeightsError(f"{weights}: neither safetensors nor one GGUF file")
        # Minutes on a busy machine, in which nothing else is said.
        _log.info("%s is converted from %s, once", entry.id, files[0].name)
        (convert or _run_converter)(files[0], target)

    return store.derive(entry, _CACHE_NAME, build)


def _run_converter(file: Path, target: Path) -> None:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
    command = [sys.executable, "-m", "atrium_llm.weights", str(file), str(target)]
    with (
        tempfile.TemporaryFile() as output,
        subprocess.Popen(  # noqa: S603 - our own module, no shell
            command,
            env=environment,
            stdin=subprocess.PIPE,  # stays open as long as this process lives
            stdout=subprocess.DEVNULL,
            stderr=output,
        ) as process,
    ):
        process.wait()
        output.seek(0)
        told = output.read().decode(errors="replace")
    if process.returncode != 0:
        lines = told.strip().splitlines() or ["no output"]
        raise WeightsError(f"{file.name}: conversion failed: {lines[-1][:300]}")


def convert_gguf(file: Path, target: Path) -> None:
    """Writes weights as bf16 safetensors, configs, tokenizer and chat template.

    A model that was loaded from GGUF refuses to be saved, so its weights are copied into
    a fresh one.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder, name = str(file.parent), file.name
    loaded = AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=name)
    config = loaded.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    fresh = AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]
        config, dtype=torch.bfloat16
    )
    state = {key: value.to(torch.bfloat16) for key, value in loaded.state_dict().items()}
    fresh.load_state_dict(state)
    fresh.generation_config = loaded.generation_config
    fresh.save_pretrained(target)
    tokenizer.save_pretrained(target)
    _drop_machine_paths(target / "config.json")


def _drop_machine_paths(config: Path) -> None:
    """Keeps the folder the same wherever it was made."""
    content = json.loads(config.read_text(encoding="utf-8"))
    for key in ("_name_or_path", "quantization_config"):
        content.pop(key, None)
    config.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _end_with_parent() -> None:
    """Ends this process when its standard input does: whoever wanted the result is gone."""

    def wait() -> None:
        os.read(0, 1)  # not sys.stdin: its lock would be held while the interpreter ends
        os._exit(1)

    threading.Thread(target=wait, name="parent", daemon=True).start()


if __name__ == "__main__":
    _end_with_parent()
    convert_gguf(Path(sys.argv[1]), Path(sys.argv[2]))
