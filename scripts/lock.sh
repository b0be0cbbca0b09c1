#!/usr/bin/env bash
# Writes the lock files: requirements/dev.lock, the starter and development environment, and one
# requirements.lock per service, for its image, with the versions of dev.lock.
# They carry hashes and no addresses, and neither torch nor CUDA (requirements/overrides.txt).
# Versions stay as they are until UPGRADE=1. Called by `make lock`.
set -euo pipefail
cd "$(dirname "$0")/.."
uv=${UV:-.venv/bin/uv}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

flags=(--universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate
  --no-header --quiet --override requirements/overrides.txt)
for package in libs/*/ services/*/; do
  flags+=(--no-emit-package "atrium-$(basename "$package")")
done
[[ -n ${UPGRADE:-} ]] && flags+=(--upgrade)

# lock SOURCE OUT [FLAG...]: an existing OUT holds the versions that are kept.
lock() {
  local source=$1 out=$2
  shift 2
  "$uv" pip compile "$source" -o "$out" "${flags[@]}" "$@"
  echo "$out: $(grep -c '==' "$out") packages"
}

lock requirements/dev.in requirements/dev.lock
lock requirements/xtts.in requirements/xtts.lock --no-deps
# Pins without hashes, as constraints for the images.
sed -n 's/^\([a-z0-9.-]*==[^\\]*\).*/\1/p' requirements/dev.lock >"$work/constraints.txt"
for service in services/*/; do
  name=$(basename "$service")
  libs=libs/common
  grep -q atrium-diffusion "${service}pyproject.toml" && libs+='|libs/diffusion'
  grep -E "^-e \./($libs|services/$name)(\[|$)" requirements/dev.in \
    | sed 's/testing,//' >"$work/$name.in"
  lock "$work/$name.in" "${service}requirements.lock" --constraint "$work/constraints.txt"
done
