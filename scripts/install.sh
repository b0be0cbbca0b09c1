#!/usr/bin/env bash
# Makes the starter and development environment, .venv, and does nothing when it is up to date.
# Called by `make install`, on which run, test and lint depend.
#
#   ATRIUM_TORCH_INDEX  address of another package index for torch. On Linux the registry's torch
#                       is the CUDA build (several GB); name an index of CPU wheels to try Atrium on
#                       a laptop. Unset: pip's own configuration decides.
#   ATRIUM_PYTHON       the interpreter to build with (default: python3.11).
#   ATRIUM_VENV         where to build (default: .venv).
set -euo pipefail
cd "$(dirname "$0")/.."

readonly TORCH=2.13.0
readonly NEEDED_MB=3000
venv=${ATRIUM_VENV:-.venv}
python=${ATRIUM_PYTHON:-python3.11}
projects=(libs/*/pyproject.toml services/*/pyproject.toml)

die() {
  echo "install: $*" >&2
  exit 1
}

# apt_install PACKAGE...: installs Debian packages where that is possible, else fails.
apt_install() {
  [[ $(id -u) == 0 ]] && command -v apt-get >/dev/null || return 1
  echo "install: apt-get install $*"
  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -yqq "$@"; } >/dev/null
}

# The stamp names everything that decides what is installed.
fingerprint() {
  { cat "$0" requirements/dev.lock "${projects[@]}"; echo "$PWD $python"; } | sha256sum | cut -d' ' -f1
}

pip_install() {
  # The filter drops pip's remark about find-links folders that this machine does not have.
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-input "$@" \
    2> >(grep -v "^WARNING: Location '.*' is ignored" >&2)
}

stamp="$venv/.atrium-installed"
want=$(fingerprint)
if [[ -f $stamp && $(<"$stamp") == "$want" && -x $venv/bin/python ]]; then
  exit 0
fi

if ! command -v "$python" >/dev/null; then
  apt_install python3.11 python3.11-venv \
    || die "$python was not found: install Python 3.11, or name one with ATRIUM_PYTHON"
fi
"$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' \
  || die "$python is $("$python" -V 2>&1): Atrium needs Python 3.11, 3.12 or 3.13"
if ! "$python" -c 'import venv, ensurepip' 2>/dev/null; then
  apt_install python3.11-venv \
    || die "$python has no venv module: install python3.11-venv (Debian, Ubuntu)"
fi

free_mb=$(df -Pm . | awk 'NR == 2 { print $4 }')
if [[ ! -d $venv ]] && ((free_mb < NEEDED_MB)); then
  die "the environment needs $NEEDED_MB MB, and only $free_mb MB are free here"
fi

if [[ ! -x $venv/bin/python ]]; then
  echo "install: making $venv with $("$python" -V)"
  "$python" -m venv "$venv"
fi
rm -f "$stamp"

installed_torch=$("$venv/bin/python" -c \
  'import importlib.metadata as m; print(m.version("torch").split("+")[0])' 2>/dev/null || true)
if [[ $installed_torch != "$TORCH" ]]; then
  echo "install: torch $TORCH"
  pip_install ${ATRIUM_TORCH_INDEX:+--extra-index-url "$ATRIUM_TORCH_INDEX"} "torch==$TORCH" \
    || die "torch $TORCH could not be installed: is the network up? (see ATRIUM_TORCH_INDEX)"
fi
echo "install: $(grep -c '==' requirements/dev.lock) locked packages, which takes minutes" \
  "(one is under GPL-3: espeakng-loader, which gives Kokoro its phonemes; docs/adr/0006)"
pip_install --require-hashes -r requirements/dev.lock \
  || die "the locked packages could not be installed: is the network up?"
echo "install: Atrium itself, editable"
editable=()
for project in "${projects[@]}"; do
  editable+=(-e "$(dirname "$project")")
done
pip_install --no-deps --no-build-isolation "${editable[@]}" \
  || die "Atrium's own packages could not be installed"

if ! command -v npm >/dev/null; then
  apt_install npm \
    || echo "install: npm was not found: install it to fetch the voices of the speech model" >&2
fi

echo "$want" >"$stamp"
