#!/usr/bin/env bash
# Makes the secrets of docker-compose.ai-services.yml, once: what is there is never written
# over. Called by the operator before the first start; prints what it made, never a value.
#
#   deploy/secrets.sh [FOLDER]      (default: ./secrets, as the compose file's SECRETS_DIR)
#
# The folder is its owner's alone (0700), which keeps this machine's other users out. The files
# in it can be read (0444), because Docker hands them to containers with the mode that they have
# here, and Atrium, PostgreSQL and Redis run as users that own nothing on this machine.
set -euo pipefail
umask 077

folder=${1:-secrets}
mkdir -p "$folder"
chmod 0700 "$folder"

random() {
  od -An -N32 -v -tx1 /dev/urandom | tr -d ' \n'
}

# make NAME CONTENT: appears whole or not at all, and only where nothing is.
make() {
  local draft
  [[ -e $folder/$1 ]] && return
  draft=$(mktemp "$folder/.$1.XXXXXX")
  printf '%s' "$2" >"$draft"
  chmod 0444 "$draft"
  if ln "$draft" "$folder/$1" 2>/dev/null; then
    echo "secrets: made $folder/$1"
  fi
  rm -f "$draft"
}

secrets=(service_credential jwt_secret key_pepper postgres_password redis_password grafana_password)
for name in "${secrets[@]}"; do
  make "$name" "$(random)"
  if [[ ! -s $folder/$name ]]; then
    echo "secrets: $folder/$name is empty; remove it and start this again" >&2
    exit 1
  fi
done
# Yours to fill, if you need them: the model hub's token, and a provider's key.
make hf_token ''
make provider_api_key ''
