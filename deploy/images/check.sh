#!/usr/bin/env bash
# Takes the steps of the CPU images in fresh Debian roots and starts each service there, because
# a machine without a container engine can build no image. Called by `make images-check`.
#
# The steps are read from the Dockerfiles themselves: what their stages copy, run and set. Debian's
# own Python 3.11 stands in for the one of the base image. A service runs as the image's user,
# with a read-only root, no network but loopback, and the models of .atrium/models; then its own
# probe must call it ready, it must do what ask.py asks of it, and stop when told to.
#
# Usage: deploy/images/check.sh [SERVICE...]      (root; Debian's debootstrap)
#   ATRIUM_TORCH_INDEX  an index of CPU wheels of torch, as for `make install`
#   IMAGES_REF          a commit to check instead of the working tree
#   IMAGES_CACHE        the fresh root (260 MB) and pip's downloads (default: .atrium/cache)
#   IMAGES_WORK         where roots are made, some GB (default: a new folder in /var/tmp)
set -euo pipefail
cd "$(dirname "$0")/../.."

readonly SUITE=bookworm MAX_BYTES=1500000000 READY_SECONDS=900 STOP_SECONDS=30
readonly COMPILERS='gcc cc g++ c++ clang tcc as ld make nvcc'
readonly USER_ID=10001:10001
cache=$(realpath -m "${IMAGES_CACHE:-.atrium/cache}")
repository=$PWD

# Mounts and processes are this script's own and end with it, however it ends.
if [[ -z ${IMAGES_INSIDE:-} ]]; then
  [[ $(id -u) == 0 ]] || { echo "images-check: must be root, for chroot" >&2 && exit 1; }
  if ! command -v debootstrap >/dev/null; then
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -yqq debootstrap; } \
      >/dev/null || { echo "images-check: install debootstrap first" >&2 && exit 1; }
  fi
  work=${IMAGES_WORK:-$(mktemp -d -p /var/tmp atrium-images.XXXXXX)}
  trap 'rm -rf --one-file-system "$work"' EXIT
  IMAGES_INSIDE=$work unshare --mount --pid --fork --kill-child --mount-proc \
    "$repository/deploy/images/check.sh" "$@" && exit 0 || exit 1
fi
work=$IMAGES_INSIDE
set -E
trap 'echo "images-check: line $LINENO: failed: $BASH_COMMAND" >&2' ERR
models=$(realpath -m .atrium/models)

say() {
  echo "images-check: $*"
}

die() {
  say "$*" >&2
  exit 1
}

# read_image SERVICE STAGE WHAT: see dockerfile.py.
read_image() {
  python3 "$repository/deploy/images/dockerfile.py" "$(dockerfile "$1")" "$2" "$3"
}

dockerfile() {
  if [[ $1 == models ]]; then
    echo "$repository/deploy/models/Dockerfile"
  else
    echo "$repository/services/$1/Dockerfile"
  fi
}

# The fresh root with Python, made once and kept as an archive.
base_archive() {
  local archive="$cache/images-$SUITE-python.tar" fresh="$work/fresh"
  if [[ ! -s $archive ]]; then
    mkdir -p "$cache"
    debootstrap --variant=minbase "$SUITE" "$fresh" >"$work/debootstrap.log" 2>&1 \
      || { tail -n 5 "$work/debootstrap.log" >&2 && die "debootstrap failed"; }
    lend_names "$fresh"
    chroot "$fresh" sh -c 'apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install \
      -yqq --no-install-recommends ca-certificates python3 python3-venv tzdata && apt-get clean' \
      </dev/null >"$work/debootstrap.log" 2>&1 \
      || { tail -n 5 "$work/debootstrap.log" >&2 && die "Python can't be installed"; }
    unmount_below "$fresh"
    rm -rf "$fresh"/var/lib/apt/lists/*
    tar -C "$fresh" -cf "$archive.part" .
    mv "$archive.part" "$archive"
    rm -rf --one-file-system "$fresh"
  fi
  echo "$archive"
}

# lend_names ROOT: names are found there as they are here, and apt's packages too.
lend_names() {
  mount -t proc proc "$1/proc"
  cp -L /etc/resolv.conf /etc/hosts "$1/etc/"
  if grep -qs "^VERSION_CODENAME=$SUITE" /etc/os-release; then
    mount --bind -o ro /etc/apt "$1/etc/apt"
  fi
}

# new_root FOLDER: unpacks the fresh root.
new_root() {
  mkdir -p "$1"
  tar -C "$1" -xf "$(base_archive)"
  lend_names "$1"
}

unmount_below() {
  local mounted
  while read -r mounted; do
    umount "$mounted"
  done < <(awk -v below="$1/" 'index($5 "/", below) == 1 { print $5 }' /proc/self/mountinfo | tac)
}

# Lets pip inside ROOT reach what it reaches here: its settings, the certificates that it
# trusts, and the folders that its settings name (of an index: with what stands beside it).
lend_pip() {
  local root=$1 file folder
  mkdir -p "$root/root/.config/pip" "$root/root/.cache/pip" "$cache/pip"
  mount --bind "$cache/pip" "$root/root/.cache/pip"
  for file in /etc/pip.conf ~/.config/pip/pip.conf; do
    [[ ! -f $file ]] || install -D "$file" "$root$file"
  done
  cp -L "${PIP_CERT:-/etc/ssl/certs/ca-certificates.crt}" "$root/mnt/trusted.pem"
  while read -r folder; do
    [[ -d $folder ]] || continue
    mkdir -p "$root$folder"
    mount --bind -o ro "$folder" "$root$folder"
  done < <(python3 -m pip config list | grep -oE "(file://)?/[^ ']+" \
    | sed 's|^file://||; s|/simple/*$||' | sort -u)
}

# Takes the build stage's steps in ROOT/src.
build() {
  local service=$1 root=$2 verb rest
  lend_pip "$root"
  mkdir -p "$root/src"
  while read -r verb rest; do
    if [[ $verb == COPY ]]; then
      copy_sources "$root/src" "$rest"
    else
      # shellcheck disable=SC2086  # the step's words
      chroot "$root" env -C /src -u REQUESTS_CA_BUNDLE -u CURL_CA_BUNDLE \
        PIP_CERT=/mnt/trusted.pem TORCH_INDEX="${ATRIUM_TORCH_INDEX:-}" $rest \
        </dev/null 2> >(grep -v "^WARNING: Location '.*' is ignored" >&2 || true)
    fi
  done < <(read_image "$service" cpu-build steps)
}

# copy_sources FOLDER "SOURCE... TARGET": of the commit, or of the files that git knows.
copy_sources() {
  local into=$1 words source file
  read -ra words <<<"$2"
  local target=${words[-1]}
  for source in "${words[@]:0:${#words[@]}-1}"; do
    if [[ -n ${IMAGES_REF:-} ]]; then
      git archive "$IMAGES_REF" -- "$source"
    else
      git ls-files -z --cached --others --exclude-standard -- "$source" \
        | while IFS= read -rd '' file; do [[ ! -e $file ]] || printf '%s\0' "$file"; done \
        | tar -c --null --no-recursion -T -
    fi | tar -C "$into" -x
    [[ -e $into/$source && (${target%/} == "$source" || $target == */) ]] \
      || die "COPY $2: not a copy to the same place"
  done
}

# Takes the final stage's steps in ROOT, with what the build left in BUILT.
finish() {
  local service=$1 root=$2 built=$3 verb rest
  mkdir -p "$root/mnt/images"
  mount --bind -o ro "$repository/deploy/images" "$root/mnt/images"
  while read -r verb rest; do
    [[ $verb == RUN ]] || die "$service: the final stage copies $rest"
    # shellcheck disable=SC2086  # the step's words
    chroot "$root" $rest </dev/null
  done < <(read_image "$service" cpu steps)
  umount "$root/mnt/images"
  mv "$built/opt/atrium" "$root/opt/atrium"
  mv "$built/etc/atrium" "$root/etc/atrium"
}

check_contents() {
  local service=$1 root=$2 found bytes
  # shellcheck disable=SC2086  # names
  for found in $COMPILERS; do
    ! chroot "$root" sh -c "command -v $found" >/dev/null || die "$service: has a compiler, $found"
  done
  found=$(find "$root/opt/atrium" "$root/etc/atrium" -perm /022 ! -type l -print -quit)
  [[ -z $found ]] || die "$service: others may write $found"
  bytes=$(du -sbx "$root" | cut -f1)
  ((bytes < MAX_BYTES)) || die "$service: $bytes bytes, of at most $MAX_BYTES"
  size=$((bytes / 1000000))
}

# as_image SERVICE ROOT WORD...: runs a command with the image's user and environment.
as_image() {
  local service=$1 root=$2 variables
  shift 2
  mapfile -t variables < <(read_image "$service" cpu env)
  exec nsenter --net="$network" chroot --userspec="$USER_ID" "$root" env -i -C /data "${variables[@]}" \
    ATRIUM_SERVICE_CREDENTIAL=images-check-credential "$@"
}

# Mounts a container's world: the root read-only, memory for /tmp and /data, the models.
seal() {
  local root=$1
  mount --bind "$root" "$root"
  mount -t proc proc "$root/proc"
  mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
  mount -t tmpfs -o "mode=0750,uid=${USER_ID%:*},gid=${USER_ID#*:}" tmpfs "$root/data"
  mount --bind -o ro "$models" "$root/models"
  mount -o remount,bind,ro "$root"
}

# Starts the service, waits for its probe, asks it for its work, stops it.
check_service() {
  local service=$1 root=$2 log="$work/$1.log" entrypoint probe started=$SECONDS pid wanted=()
  # The gateway is ready with the first service, and there is none here: it must be alive.
  [[ $service == gateway ]] || wanted=(--ready)
  mapfile -t entrypoint < <(read_image "$service" cpu entrypoint)
  mapfile -t probe < <(read_image "$service" cpu probe)
  (as_image "$service" "$root" "${entrypoint[@]}") >"$log" 2>&1 &
  pid=$!
  until (as_image "$service" "$root" "${probe[@]}" "${wanted[@]}") 2>>"$log.probe"; do
    kill -0 "$pid" 2>/dev/null || { tail -n 15 "$log" >&2 && die "$service: ended at its start"; }
    ((SECONDS - started < READY_SECONDS)) \
      || { tail -n 5 "$log" "$log.probe" >&2 && die "$service: not ready in $READY_SECONDS s"; }
    sleep 1
  done
  ready=$((SECONDS - started))
  (as_image "$service" "$root" "${probe[@]}") || die "$service: ready, and not alive"
  # Its /tmp is memory, mounted here too.
  install -m 0644 "$repository/deploy/images/ask.py" "$root/tmp/ask.py"
  came=$( (as_image "$service" "$root" python /tmp/ask.py "$service") 2>"$log.ask") \
    || { tail -n 5 "$log" "$log.ask" >&2 && die "$service: does not do its work"; }
  ! (as_image "$service" "$root" touch /opt/atrium/x) 2>/dev/null || die "$service: root is writable"
  kill -TERM "$pid"
  timeout "$STOP_SECONDS" tail --pid="$pid" -f /dev/null || die "$service: does not stop"
  wait "$pid" || die "$service: stopped with an error: $(tail -n 3 "$log")"
}

# The one-shot must know its catalogue, and have what it downloads with.
check_models() {
  local root=$1 entrypoint
  mapfile -t entrypoint < <(read_image models cpu entrypoint)
  (as_image models "$root" "${entrypoint[@]}" list) >"$work/models.log" 2>&1 \
    || { tail -n 5 "$work/models.log" >&2 && die "models: can't list the catalogue"; }
  (as_image models "$root" sh -c 'python -m pip --version && npm --version') >/dev/null \
    || die "models: lacks pip or npm"
}

check_image() {
  local service=$1 began=$SECONDS built="$work/$1-build" root="$work/$1" size=0 ready=0 came=''
  new_root "$built"
  build "$service" "$built"
  new_root "$root"
  finish "$service" "$root" "$built"
  unmount_below "$built"
  unmount_below "$root"
  check_contents "$service" "$root"
  local built_in=$((SECONDS - began))
  seal "$root"
  if [[ $service == models ]]; then
    check_models "$root"
  else
    check_service "$service" "$root"
  fi
  unmount_below "$root"
  rm -rf --one-file-system "$built" "$root"
  say "$service: $size MB, installed in $built_in s, ready in $ready s${came:+, asked: $came}"
}

# A network with nothing but loopback, held by a process that sleeps.
unshare --net sleep infinity &
holder=$!
network="/proc/$holder/ns/net"
until [[ $(readlink "$network") != $(readlink /proc/self/ns/net) ]]; do sleep 0.1; done
nsenter --net="$network" ip link set lo up

services=("$@")
((${#services[@]})) || services=(gateway text2image tts stt img2img img2text llm models)
for service in "${services[@]}"; do
  [[ -f $(dockerfile "$service") ]] || die "there is no image $service"
  check_image "$service"
done
kill "$holder"
