#!/usr/bin/env bash
# Installs the programs that the tests use and that are no Python packages. Called by `make test`.
#   flite: speaks the sentences that the transcription tests transcribe.
#   asterisk-core-sounds-en-wav: recordings of a person, with their texts.
#   fonts-dejavu-core: the letters of the pages that the reading tests read.
#   tesseract-ocr: the program that reads where its library can't be imported.
#   redis-server, postgresql: each test starts servers of its own and ends them.
#   nginx, curl: the edge before a real gateway, and a client that speaks HTTP/2 with it.
#   openssh-server, autossh: both ends of a tunnel, on ports of a test's own.
#   prometheus: promtool checks the metrics, a server of a test's own scrapes them.
#   oidc-provider, by npm with its own Node: a real issuer for the tests of OIDC tokens.
set -euo pipefail

issuer=$(dirname "$0")/../services/gateway/tests/oidc/provider

install_issuer() {
  [[ -x $issuer/node_modules/.bin/node && $issuer/node_modules -nt $issuer/package-lock.json ]] && return
  echo "test: npm ci in ${issuer#*../}"
  npm ci --prefix "$issuer" --silent --no-audit --no-fund
  touch "$issuer/node_modules"
}

# Debian puts PostgreSQL's server programs into no folder of PATH.
has_postgres() {
  command -v postgres >/dev/null || compgen -G '/usr/lib/postgresql/*/bin/postgres' >/dev/null
}

missing=()
command -v flite >/dev/null || missing+=(flite)
command -v npm >/dev/null || missing+=(npm)
command -v redis-server >/dev/null || missing+=(redis-server)
has_postgres || missing+=(postgresql)
[[ -e /usr/share/asterisk/sounds/en_US_f_Allison ]] || missing+=(asterisk-core-sounds-en-wav)
[[ -e /usr/share/fonts/truetype/dejavu/DejaVuSerif.ttf ]] || missing+=(fonts-dejavu-core)
command -v tesseract >/dev/null || missing+=(tesseract-ocr)
command -v promtool >/dev/null || missing+=(prometheus)
PATH=$PATH:/usr/sbin command -v nginx >/dev/null || missing+=(nginx-light)
command -v curl >/dev/null || missing+=(curl)
[[ -x /usr/sbin/sshd ]] || missing+=(openssh-server)
command -v autossh >/dev/null || missing+=(autossh)
if ((${#missing[@]} == 0)); then
  install_issuer
  exit 0
fi

# The distribution's own cluster is neither made nor started: the tests have theirs.
no_cluster=/etc/postgresql-common/createcluster.d/atrium-tests.conf
# Nor are its Prometheus, nginx and sshd, whose units are masked: `systemctl unmask prometheus`
# gives it back. What was installed before stays as it is.
units=/etc/systemd/system
# Where Debian's own scripts start services without systemd, they ask this first.
no_start=/usr/sbin/policy-rc.d

# mask PACKAGE UNIT: keeps the unit of a package that is missing from being started.
mask() {
  [[ " ${missing[*]} " == *" $1 "* && ! -e $units/$2 ]] || return 0
  mkdir -p "$units"
  ln -sf /dev/null "$units/$2"
}

install_missing() {
  apt-get update -qq
  mkdir -p "$(dirname "$no_cluster")"
  echo 'create_main_cluster = false' >"$no_cluster"
  mask prometheus prometheus.service
  mask nginx-light nginx.service
  mask openssh-server ssh.service
  mask openssh-server ssh.socket
  local status=0 ours=
  if [[ ! -e $no_start ]]; then
    ours=1
    printf '#!/bin/sh\nexit 101\n' >"$no_start"
    chmod +x "$no_start"
  fi
  # `prometheus-node-exporter-`: Prometheus recommends it, and it would be started.
  DEBIAN_FRONTEND=noninteractive apt-get install -yqq \
    "${missing[@]}" prometheus-node-exporter- || status=$?
  rm -f "$no_cluster" ${ours:+"$no_start"}
  return $status
}

if [[ $(id -u) == 0 ]] && command -v apt-get >/dev/null; then
  echo "test: apt-get install ${missing[*]}"
  if install_missing >/dev/null; then
    install_issuer
    exit 0
  fi
fi
echo "test: install ${missing[*]} first (Debian: apt-get install ${missing[*]})" >&2
exit 1
