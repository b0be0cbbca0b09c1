#!/usr/bin/env bash
# Regenerates the committed stubs from protos/ into a folder (default: libs/common/src).
# The pinned generator is the floor that every runtime can load (docs/adr/0002).
# Usage: scripts/protos.sh [OUT]
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:-libs/common/src}
python=${PYTHON:-.venv/bin/python}
PATH="$(dirname "$python"):$PATH"
mapfile -t files < <(cd protos && find atrium -name '*.proto' | sort)
rm -rf "$out/atrium"
mkdir -p "$out"
"$python" -m grpc_tools.protoc -I protos \
  --python_out="$out" --mypy_out="quiet,readable_stubs:$out" \
  --grpc_python_out="$out" --mypy_grpc_out="quiet:$out" "${files[@]}"
touch "$out/atrium/py.typed"
