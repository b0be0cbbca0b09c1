#!/usr/bin/env bash
# Puts a certificate where the edge looks for it; running edges take it up within a minute.
#
#   deploy/nginx/certificate.sh self-signed NAME [FOLDER]
#   deploy/nginx/certificate.sh install FULLCHAIN KEY [FOLDER]
#
# FOLDER is ./secrets/tls, as the compose file's EDGE_TLS_DIR. The key can be read by whoever
# reaches it, because the edge's container runs as a user that owns nothing here; the folder
# above, ./secrets, is its owner's alone (0700), which keeps this machine's other users out.
set -euo pipefail
umask 022

usage() {
  sed -n '4,5s/^# *//p' "$0" >&2
  exit 2
}

draft=$(mktemp -d)
trap 'rm -rf "$draft"' EXIT

case ${1:-} in
  self-signed)
    [[ $# -ge 2 ]] || usage
    folder=${3:-secrets/tls}
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -noenc -days 90 \
      -subj "/CN=$2" -addext "subjectAltName=DNS:$2" \
      -keyout "$draft/privkey.pem" -out "$draft/fullchain.pem" 2>/dev/null
    ;;
  install)
    [[ $# -ge 3 ]] || usage
    folder=${4:-secrets/tls}
    cp -- "$2" "$draft/fullchain.pem"
    cp -- "$3" "$draft/privkey.pem"
    ;;
  *) usage ;;
esac

of_certificate=$(openssl x509 -in "$draft/fullchain.pem" -noout -pubkey)
if [[ $(openssl pkey -in "$draft/privkey.pem" -pubout) != "$of_certificate" ]]; then
  echo 'certificate: the key does not belong to the certificate; nothing was changed' >&2
  exit 1
fi

above=$(dirname "$folder")
if [[ ! -d $above ]]; then
  mkdir -p "$above"
  chmod 0700 "$above"
fi
mkdir -p "$folder"
for file in privkey.pem fullchain.pem; do
  install -m 0444 "$draft/$file" "$folder/.$file.new"
  mv -f "$folder/.$file.new" "$folder/$file"
done
echo "certificate: $folder, until $(openssl x509 -in "$folder/fullchain.pem" -noout -enddate | cut -d= -f2)"
