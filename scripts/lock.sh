#!/usr/bin/env bash
# Writes the lock files: requirements/dev.lock, the starter and development environment, and per
# image one of what is installed there: requirements.lock (with a GPU too, where there is no
# requirements.gpu.lock beside it), with the versions of dev.lock.
# They carry hashes and no addresses, and neither torch nor CUDA (requirements/overrides.txt).
# Versions stay as they are until UPGRADE=1. Called by `make lock`.
#
# Usage: scripts/lock.sh [NAME...]: dev, xtts, images, gpu (default: all of them)
set -euo pipefail
cd "$(dirname "$0")/.."
uv=${UV:-.venv/bin/uv}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
torch=$(sed -n 's/^readonly TORCH=//p' scripts/install.sh)

common=(--generate-hashes --no-emit-index-url --no-annotate --no-header --quiet)
for package in libs/*/ services/*/; do
  common+=(--no-emit-package "atrium-$(basename "$package")")
done
[[ -n ${UPGRADE:-} ]] && common+=(--upgrade)
everywhere=(--universal --python-version 3.11 --override requirements/overrides.txt)
# The CUDA images: Ubuntu 24.04's Python on the machines that have such cards.
with_cuda=(--python-version 3.12 --python-platform x86_64-manylinux_2_28
  --constraint "$work/torch.txt")

# lock SOURCE OUT [FLAG...]: an existing OUT holds the versions that are kept.
lock() {
  local source=$1 out=$2
  shift 2
  "$uv" pip compile "$source" -o "$out" "${common[@]}" "$@"
  echo "$out: $(grep -c '==' "$out") packages"
}

# Pins without hashes, as constraints for the images.
dev_versions() {
  sed -n 's/^\([a-z0-9.-]*==[^\\]*\).*/\1/p' requirements/dev.lock >"$work/constraints.txt"
}

lock_images() {
  dev_versions
  local service name libs extras
  for service in services/*/; do
    name=$(basename "$service")
    libs=libs/common
    grep -q atrium-diffusion "${service}pyproject.toml" && libs+='|libs/diffusion'
    # Models are fetched by the one-shot, or by the gateway's command line.
    extras=tracing
    [[ $name != gateway ]] || extras=cli,hub,tracing
    # RapidOCR's 200 MB serve no model of the starter catalogue.
    grep -E "^-e \./($libs|services/$name)(\[|$)" requirements/dev.in \
      | sed "s/\(common\)\[.*\]/\1[$extras]/; s/rapidocr,//" >"$work/$name.in"
    if grep -q 'torch' "${service}pyproject.toml" libs/diffusion/pyproject.toml \
      && grep -qE 'transformers|diffusers' "$work/$name.in"; then
      cat requirements/torch.in >>"$work/$name.in"
    fi
    lock "$work/$name.in" "${service}requirements.lock" "${everywhere[@]}" \
      --constraint "$work/constraints.txt"
  done
  lock deploy/models/requirements.in deploy/models/requirements.lock "${everywhere[@]}" \
    --constraint "$work/constraints.txt"
  echo setuptools >"$work/build.in"
  lock "$work/build.in" deploy/images/build.lock "${everywhere[@]}" \
    --constraint "$work/constraints.txt"
}

# torch brings its CUDA itself, in the versions that it pins: they stay out of the locks with it.
lock_gpu() {
  dev_versions
  echo "torch==$torch" >"$work/torch.txt"
  local beside=() name source versions
  while read -r name; do
    beside+=(--no-emit-package "$name")
  done < <("$uv" pip compile "$work/torch.txt" --quiet --no-header --no-annotate \
    "${with_cuda[@]}" | sed -n 's/^\(torch\|triton\|cuda-[a-z-]*\|nvidia-[a-z0-9-]*\)==.*/\1/p')
  for source in requirements/gpu/*.in; do
    name=$(basename "$source" .in)
    versions=(--constraint "$work/constraints.txt")
    [[ $name == llm ]] && versions=()  # vLLM pins others
    lock "$source" "services/$name/requirements.gpu.lock" "${with_cuda[@]}" \
      "${versions[@]}" "${beside[@]}"
  done
}

names=("$@")
((${#names[@]})) || names=(dev xtts images gpu)
for name in "${names[@]}"; do
  case $name in
    dev) lock requirements/dev.in requirements/dev.lock "${everywhere[@]}" ;;
    xtts) lock requirements/xtts.in requirements/xtts.lock "${everywhere[@]}" --no-deps ;;
    images) lock_images ;;
    gpu) lock_gpu ;;
    *) echo "lock: no lock is called $name" >&2 && exit 1 ;;
  esac
done
