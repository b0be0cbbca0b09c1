#!/usr/bin/env bash
# Sets up one end of the tunnel; safe to repeat. Run as root (docs/deploy/tunnel.md):
#
#   deploy/tunnel/install.sh gpu NAME HOST [SSH_PORT]   on the GPU server; prints its public key
#   deploy/tunnel/install.sh vps 'ssh-ed25519 AAAA...' [PORT...]   on the VPS (PORT: 18000)
#
# With DESTDIR=FOLDER everything is written below that folder, and no account is made and no
# service is touched: for packages and for tests.
set -euo pipefail
umask 022

root=${DESTDIR:-}
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
account=atrium-tunnel

usage() {
  sed -n '4,5s/^# *//p' "$0" >&2
  exit 2
}

# put FILE MODE: standard input becomes FILE, whole or not at all.
put() {
  mkdir -p "$(dirname "$root$1")"
  local draft
  draft=$(mktemp "$root$1.XXXXXX")
  cat >"$draft"
  chmod "$2" "$draft"
  mv -f "$draft" "$root$1"
}

make_account() {
  [[ -n $root ]] && return
  getent passwd "$account" >/dev/null ||
    useradd --system --home-dir /nonexistent --no-create-home --shell /usr/sbin/nologin "$account"
}

gpu() {
  [[ $# -ge 2 && $1 =~ ^[a-z0-9-]+$ ]] || usage
  local name=$1 host=$2 port=${3:-22} folder=/etc/atrium/tunnel
  command -v autossh >/dev/null || { echo 'install: apt-get install autossh first' >&2; exit 1; }
  make_account
  mkdir -p "$root$folder"
  if [[ ! -e $root$folder/id_ed25519 ]]; then
    ssh-keygen -q -t ed25519 -N '' -C "$account@$(uname -n)" -f "$root$folder/id_ed25519"
  fi
  touch "$root$folder/known_hosts"
  if [[ -z $root ]]; then
    chown -R "$account:" "$folder"
  fi
  if [[ ! -e $root$folder/$name.env ]]; then
    put "$folder/$name.env" 0644 <<ENV
# Of atrium-tunnel@$name; what else may stand here is in the unit.
SSH_HOST=$host
SSH_PORT=$port
ENV
  fi
  put /etc/systemd/system/atrium-tunnel@.service 0644 <"$here/atrium-tunnel@.service"
  if [[ -z $root ]]; then
    systemctl daemon-reload
    systemctl enable "atrium-tunnel@$name"
  fi
  cat <<NEXT
install: this server's key, for \`install.sh vps\` on $host:
$(cat "$root$folder/id_ed25519.pub")
install: then, with $host's fingerprint compared:
  ssh-keyscan -t ed25519 -p $port $host | tee -a $folder/known_hosts | ssh-keygen -lf -
  systemctl restart atrium-tunnel@$name
NEXT
}

vps() {
  [[ $# -ge 1 ]] || usage
  local key=$1 listen='' ports
  shift
  [[ $key =~ ^ssh-ed25519\ [A-Za-z0-9+/=]+(\ [^\"]*)?$ ]] || { echo 'install: that is no ed25519 key' >&2; exit 2; }
  ports=("${@:-18000}")
  local port options=restrict,port-forwarding
  for port in "${ports[@]}"; do
    [[ $port =~ ^[0-9]+$ ]] || usage
    options+=",permitlisten=\"127.0.0.1:$port\""
    listen+=" 127.0.0.1:$port"
  done
  make_account
  put /etc/ssh/atrium-tunnel.keys 0644 <<<"$options $key"
  put /etc/ssh/sshd_config.d/atrium-tunnel.conf 0644 <<SSHD
# The account of Atrium's tunnel may listen on this machine's loopback, and nothing else.
# A dead connection is given up after 30 s, so that the next one finds its port free.
Match User $account
  AuthorizedKeysFile /etc/ssh/atrium-tunnel.keys
  AuthenticationMethods publickey
  AllowTcpForwarding remote
  PermitListen$listen
  PermitOpen none
  GatewayPorts no
  AllowAgentForwarding no
  AllowStreamLocalForwarding no
  X11Forwarding no
  PermitTTY no
  PermitTunnel no
  MaxSessions 0
  ClientAliveInterval 10
  ClientAliveCountMax 2
Match all
SSHD
  if [[ -z $root ]]; then
    sshd -t
    systemctl reload ssh 2>/dev/null || systemctl reload sshd
  fi
  echo "install: $account may listen on$listen"
}

case ${1:-} in
  gpu) shift; gpu "$@" ;;
  vps) shift; vps "$@" ;;
  *) usage ;;
esac
