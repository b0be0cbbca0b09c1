#!/usr/bin/env bash
# Installs the programs that the tests use and that are no Python packages. Called by `make test`.
#   flite: speaks the sentences that the transcription tests transcribe.
#   asterisk-core-sounds-en-wav: recordings of a person, with their texts.
#   fonts-dejavu-core: the letters of the pages that the reading tests read.
#   tesseract-ocr: the program that reads where its library can't be imported.
set -euo pipefail

missing=()
command -v flite >/dev/null || missing+=(flite)
command -v redis-server >/dev/null || missing+=(redis-server)
[[ -e /usr/share/asterisk/sounds/en_US_f_Allison ]] || missing+=(asterisk-core-sounds-en-wav)
[[ -e /usr/share/fonts/truetype/dejavu/DejaVuSerif.ttf ]] || missing+=(fonts-dejavu-core)
command -v tesseract >/dev/null || missing+=(tesseract-ocr)
((${#missing[@]} == 0)) && exit 0

if [[ $(id -u) == 0 ]] && command -v apt-get >/dev/null; then
  echo "test: apt-get install ${missing[*]}"
  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -yqq "${missing[@]}"; } \
    >/dev/null && exit 0
fi
echo "test: install ${missing[*]} first (Debian: apt-get install ${missing[*]})" >&2
exit 1
