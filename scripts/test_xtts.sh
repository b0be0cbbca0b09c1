#!/usr/bin/env bash
# Runs the XTTS engine for real, on a CPU, with a small checkpoint of random weights.
# Called by `make test-xtts`, and by `make test` where no TEST_ARGS choose tests.
#
# coqui-tts stays out of .venv: with torchaudio and scipy it is 190 MB that `make run` has
# no use for, and transformers, which the text service runs on, would import all it finds of
# them. It has a thin environment over .venv instead: it sees .venv's packages, torch among
# them, and adds requirements/xtts.lock.
#
# Usage: scripts/test_xtts.sh [install | PYTEST_ARGS...]
set -euo pipefail
cd "$(dirname "$0")/.."
base=.venv
environment=.venv-xtts
python="$environment/bin/python"
stamp="$environment/.atrium-installed"

# The stamp names everything that decides what is installed.
want=$({ cat "$0" requirements/xtts.lock; echo "$PWD"; } | sha256sum | cut -d' ' -f1)

install() {
  rm -rf "$environment"
  "$base/bin/python" -m venv --without-pip "$environment"
  "$base/bin/python" -m pip --python "$python" install --quiet --disable-pip-version-check \
    --no-input --no-deps --require-hashes -r requirements/xtts.lock \
    2> >(grep -v "^WARNING: Location '.*' is ignored" >&2)
  local packages shared
  packages=$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
  shared=$("$base/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
  # Linked to CUDA: beside the CPU build of torch they break the import. XTTS uses what
  # torchaudio does in Python.
  find "$packages/torchaudio" -name '*.so' -delete
  # addsitedir, so that .venv's own .pth files (the editable packages) are read as well.
  echo "import site; site.addsitedir('$shared')" >"$packages/atrium_base.pth"
  echo "$want" >"$stamp"
}

[[ -f $stamp && $(<"$stamp") == "$want" ]] || install
[[ ${1:-} != install ]] || exit 0

export HF_HUB_OFFLINE=1 TRANSFORMERS_OFFLINE=1 OMP_NUM_THREADS="${OMP_NUM_THREADS:-2}"
exec "$python" -m pytest services/tts/tests/xtts_contract.py "$@"
