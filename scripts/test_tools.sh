#!/usr/bin/env bash
# Installs the programs that the tests use and that are no Python packages. Called by `make test`.
#   flite: speaks the sentences that the transcription tests transcribe.
#   asterisk-core-sounds-en-wav: recordings of a person, with their texts.
#   fonts-dejavu-core: the letters of the pages that the reading tests read.
#   tesseract-ocr: the program that reads where its library can't be imported.
#   redis-server, postgresql: each test starts servers of its own and ends them.
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
if ((${#missing[@]} == 0)); then
  install_issuer
  exit 0
fi

# The distribution's own cluster is neither made nor started: the tests have theirs.
no_cluster=/etc/postgresql-common/createcluster.d/atrium-tests.conf
# Nor is its Prometheus, whose unit is masked: `systemctl unmask prometheus` gives it back.
no_prometheus=/etc/systemd/system/prometheus.service

install_missing() {
  apt-get update -qq
  mkdir -p "$(dirname "$no_cluster")"
  echo 'create_main_cluster = false' >"$no_cluster"
  if [[ " ${missing[*]} " == *" prometheus "* && ! -e $no_prometheus ]]; then
    mkdir -p "$(dirname "$no_prometheus")"
    ln -sf /dev/null "$no_prometheus"
  fi
  local status=0
  # `prometheus-node-exporter-`: Prometheus recommends it, and it would be started.
  DEBIAN_FRONTEND=noninteractive apt-get install -yqq \
    "${missing[@]}" prometheus-node-exporter- || status=$?
  rm -f "$no_cluster"
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
