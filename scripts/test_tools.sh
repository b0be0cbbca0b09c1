#!/usr/bin/env bash
# Installs the programs that the tests use and that are no Python packages. Called by `make test`.
#   espeak-ng: speaks the sentences that the transcription tests transcribe.
set -euo pipefail

missing=()
command -v espeak-ng >/dev/null || missing+=(espeak-ng)
((${#missing[@]} == 0)) && exit 0

if [[ $(id -u) == 0 ]] && command -v apt-get >/dev/null; then
  echo "test: apt-get install ${missing[*]}"
  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -yqq "${missing[@]}"; } \
    >/dev/null && exit 0
fi
echo "test: install ${missing[*]} first (Debian: apt-get install ${missing[*]})" >&2
exit 1
