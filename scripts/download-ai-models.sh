#!/usr/bin/env bash
# Fetches the models of a catalogue and checks them: `atrium models pull`, and its relatives.
# See docs/models.md.
#
#   scripts/download-ai-models.sh                        the starter models
#   scripts/download-ai-models.sh --gpu                  those of models/gpu.yaml
#   scripts/download-ai-models.sh --gpu qwen3-8b xtts-v2 these
#   scripts/download-ai-models.sh --gpu list|verify|show|remove|prune|licence ...
#
#   ATRIUM_CATALOGUE   catalogue file; --gpu takes models/gpu.yaml
#   ATRIUM_MODELS_DIR  where models are kept (default: .atrium/models)
#   ATRIUM_OFFLINE     1 fetches nothing and says what is missing
#   HF_ENDPOINT, HF_TOKEN  a mirror of the model hub; a token for closed repositories
set -euo pipefail
cd "$(dirname "$0")/.."

die() {
  echo "download-ai-models: $*" >&2
  exit 1
}

if [[ ${1:-} == -h || ${1:-} == --help ]]; then
  sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0"
  exit 0
fi

if [[ -x .venv/bin/atrium-models ]]; then
  program=.venv/bin/atrium-models
elif ! program=$(command -v atrium-models); then
  die "atrium-models was not found: run make install, or pip install 'atrium-common[cli,hub]'"
fi

if [[ ${1:-} == --gpu ]]; then
  shift
  ATRIUM_CATALOGUE=models/gpu.yaml
fi
export ATRIUM_CATALOGUE=${ATRIUM_CATALOGUE:-models/starter.yaml}
export ATRIUM_MODELS_DIR=${ATRIUM_MODELS_DIR:-.atrium/models}
[[ -f $ATRIUM_CATALOGUE ]] || die "there is no catalogue $ATRIUM_CATALOGUE (ATRIUM_CATALOGUE)"

case ${1:-} in
  list | pull | verify | remove | prune | show | licence | license) ;;
  *) set -- pull "$@" ;;
esac
exec "$program" "$@"
