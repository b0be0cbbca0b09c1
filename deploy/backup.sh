#!/usr/bin/env bash
# Writes one backup of a running suite: the database, Redis, the gateway's spool, cloned voices,
# catalogue and settings. Called by hand or by a timer, from the repository's root.
#
#   deploy/backup.sh [--keep N] [--secrets PASSPHRASE_FILE] [FOLDER]     (14, ./backups)
#
# FOLDER gets atrium-<time, UTC>, which appears whole or not at all; the newest N stay.
# Exit status: 0 done; 1 failed, nothing new is there; 2 wrong arguments; 3 another one runs.
# What it reads on plain hosts, and how to bring it back: docs/deploy/backup.md.
set -euo pipefail
umask 077

# shellcheck source=deploy/backup/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/backup/common.sh"

keep=14 passphrase='' folder=backups
while (($#)); do
  case $1 in
    --keep) keep=${2:-} && shift 2 ;;
    --secrets) passphrase=${2:-} && shift 2 ;;
    -*) stop 2 "unknown option $1" ;;
    *) folder=$1 && shift ;;
  esac
done
[[ $keep =~ ^[1-9][0-9]*$ ]] || stop 2 '--keep takes a number of backups, 1 or more'
[[ -z $passphrase || -s $passphrase ]] || stop 2 "the passphrase file $passphrase is empty or missing"

mkdir -p "$folder"
exec 9>"$folder/.lock"
flock --nonblock 9 || stop 3 'another backup runs'

draft=$(mktemp -d "$folder/.draft-XXXXXX")
trap 'rm -rf "$draft"' EXIT

# pack state|voices ARGUMENT...: what is written meanwhile is no failure.
pack() {
  local which=$1 status=0
  shift
  in_volume "$which" tar --warning=no-file-changed --warning=no-file-removed \
    --sort=name -czf - "$@" . >"$draft/$which.tar.gz" || status=$?
  ((status <= 1)) || stop 1 "tar of $which failed with $status"
  gzip --test "$draft/$which.tar.gz" || stop 1 "the archive of $which is cut"
}

# The spool before the database: what leaves it meanwhile is in the database by then, and what
# is in both is counted once. Redis last: it never knows less than the ledger.
if has_folder state; then
  pack state "${WITHOUT[@]}"
fi
if on_sqlite; then
  sqlite copy "$SQLITE" "$draft/database.sqlite"
else
  postgres pg_dump --format custom --no-password >"$draft/database.dump"
fi
if has_redis; then
  dump_redis >"$draft/redis.rdb" 2>"$draft/.redis.log" || stop 1 "$(tail -n 1 "$draft/.redis.log")"
  rm "$draft/.redis.log"
  [[ $(head -c 5 "$draft/redis.rdb") == REDIS ]] || stop 1 'Redis gave no dump'
fi
no_voices=''
if has_folder voices && on_hosts && [[ ! -d $VOICES_DIR ]]; then
  no_voices="voices (there is no $VOICES_DIR), "
elif has_folder voices; then
  # In the container the folder of voices is one of several; on a host it is the folder itself.
  if on_hosts; then pack voices; else pack voices --exclude=./cache --exclude=./models; fi
fi

settings=()
for each in .env settings.env "$(setting CATALOGUE_DIR models)"; do
  [[ ! -e $each ]] || settings+=("$each")
done
((${#settings[@]} == 0)) || tar -czf "$draft/settings.tar.gz" --exclude='*.safetensors' \
  --exclude='*.py' --exclude='__pycache__' -- "${settings[@]}"

secret=()
for each in "$(setting SECRETS_DIR secrets)" ${STATE_DIR:+"$STATE_DIR/jwt.secret" "$STATE_DIR/key.pepper"}; do
  [[ ! -e $each ]] || secret+=("$each")
done
if [[ -n $passphrase ]]; then
  ((${#secret[@]})) || stop 1 'there are no secrets to back up'
  tar -cf - -- "${secret[@]}" | openssl enc -aes-256-cbc -pbkdf2 -iter 600000 -salt \
    -pass "file:$passphrase" -out "$draft/secrets.tar.enc"
  missing="${no_voices}weights"
else
  missing="${no_voices}weights, and the secrets (${secret[*]:-none found}): without key_pepper no API key works"
fi

name=atrium-$(date -u +%Y%m%dT%H%M%SZ)
cat >"$draft/ABOUT" <<ABOUT
made: $(date -u +%Y-%m-%dT%H:%M:%SZ)
release: $(setting ATRIUM_VERSION 'of the checkout')
not in it: $missing
restore: deploy/restore.sh FOLDER
ABOUT
(cd "$draft" && sha256sum -- * >SHA256SUMS)
sync -f "$draft"
[[ ! -e $folder/$name ]] || stop 1 "$folder/$name is there already"
mv -T "$draft" "$folder/$name"
sync -f "$folder"

# A backup is complete if it has its sums; drafts of a machine that died are no backups.
find "$folder" -maxdepth 1 -name '.draft-*' -mmin +1440 -exec rm -rf {} +
mapfile -t old < <(find "$folder" -mindepth 2 -maxdepth 2 -path "$folder/atrium-*/SHA256SUMS" |
  sort -r | tail -n "+$((keep + 1))")
for each in "${old[@]}"; do
  rm -rf "$(dirname "$each")"
done
say "$folder/$name ($(du -sh "$folder/$name" | cut -f1)); not in it: $missing"
