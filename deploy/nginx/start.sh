#!/bin/sh
# Runs the edge: fills nginx.conf.template in from EDGE_* variables and starts nginx with it, and
# again when the certificate on disk changes. The container `edge` and atrium-edge.service call it;
# `start.sh --test` only checks what it would run.
#
# Each variable is explained in docs/deploy/edge.md; without any, it is the container's edge.
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
run=${EDGE_RUN_DIR:-/tmp/edge}
tls=${EDGE_TLS:-/etc/atrium/tls}
gateway=${EDGE_GATEWAY:-gateway:8000}

fail() {
  echo "edge: $1" >&2
  exit 2
}

# checked NAME VALUE PATTERN: what goes into the file is what it should be, and nothing more.
checked() {
  printf '%s\n' "$2" | grep -Eqx -- "$3" || fail "$1 can't be '$2'"
}

number() {
  checked "$1" "$2" '[1-9][0-9]{0,11}'
}

# listener VALUE: IPv6's any address takes IPv4, too.
listener() {
  case $1 in
    \[::\]:*) echo "$1 ipv6only=off" ;;
    *) echo "$1" ;;
  esac
}

http=${EDGE_HTTP_LISTEN:-8080} https=${EDGE_HTTPS_LISTEN:-8443}
port=${EDGE_HTTPS_PORT:-443} workers=${EDGE_WORKERS:-2}
rate=${EDGE_RATE:-20} burst=${EDGE_BURST:-100} connections=${EDGE_CONNECTIONS:-100}
body=${EDGE_MAX_BODY_BYTES:-16777216} upload=${EDGE_MAX_UPLOAD_BYTES:-209715200}
acme=${EDGE_ACME:-/var/lib/acme} log=${EDGE_ACCESS_LOG:-/dev/stdout}
for name in port workers rate burst connections body upload; do
  eval "number EDGE_$name \"\$$name\""
done
for address in "$http" "$https"; do
  checked EDGE_HTTP_LISTEN/EDGE_HTTPS_LISTEN "$address" '((\[[0-9a-f:]+\]|[0-9.]+):)?[0-9]+'
done
checked EDGE_GATEWAY "$gateway" '[A-Za-z0-9._-]+:[0-9]+'
checked EDGE_ACCESS_LOG "$log" '(/[A-Za-z0-9._/-]+|off|syslog:[A-Za-z0-9._:=,/-]+)'
for path in "$run" "$tls" "$acme" "$here"; do
  checked 'a folder' "$path" '/[A-Za-z0-9._/-]+'
done
for file in fullchain.pem privkey.pem; do
  [ -r "$tls/$file" ] || fail "$tls/$file can't be read; deploy/nginx/certificate.sh makes it"
done

# Lists; an asterisk in them is no pattern.
set -f
proxies=
for network in $(echo "${EDGE_UPPER_PROXIES:-}" | tr ',' ' '); do
  checked EDGE_UPPER_PROXIES "$network" '[0-9a-f.:]+(/[0-9]+)?'
  proxies="${proxies}set_real_ip_from $network; "
done
[ -z "$proxies" ] || proxies="${proxies}real_ip_header X-Forwarded-For; real_ip_recursive on;"

# The gateway's list of origins, as JSON or with commas.
origins=
for origin in $(printf '%s' "${EDGE_CORS_ORIGINS:-}" | sed 's/^ *\[//; s/\] *$//' | tr -d '"' | tr ',' ' '); do
  checked EDGE_CORS_ORIGINS "$origin" '[a-z][a-z0-9+.-]*://([A-Za-z0-9._-]+|\[[0-9a-f:]+\])(:[0-9]+)?'
  origins="$origins \"$origin\" \$http_origin;"
done
set +f

# An address has connections that are kept; a name is asked for when its answer is old.
if echo "$gateway" | grep -Eq '^[0-9.]+:'; then
  upstream="upstream atrium_gateway { server $gateway; keepalive 32; keepalive_timeout 60s; }"
  gateway=atrium_gateway
else
  resolver=$(awk '$1 == "nameserver" { print $2; exit }' /etc/resolv.conf)
  case $resolver in *:*) resolver="[$resolver]" ;; esac
  upstream="resolver $resolver valid=5s ipv6=off; resolver_timeout 2s;"
fi

case ${EDGE_DOCS:-on} in
  on) docs="include $run/proxy.conf;" ;;
  off) docs='return 404;' ;;
  *) fail 'EDGE_DOCS is on or off' ;;
esac

# Since 1.25.1 HTTP/2 is a directive of its own, and the older way is warned about.
case $(nginx -v 2>&1) in
  */1.[0-9].* | */1.1[0-9].* | */1.2[0-4].* | */1.25.0*) listen=' http2' directive='' ;;
  *) listen='' directive='http2 on;' ;;
esac

suffix=
[ "$port" = 443 ] || suffix=":$port"
mkdir -p "$run"
cp "$here"/*.conf "$run/"
sed -e "s|@CONF@|$run|g" -e "s|@RUN@|$run|g" -e "s|@TLS@|$tls|g" -e "s|@ACME@|$acme|g" \
  -e "s|@WORKERS@|$workers|" -e "s|@RATE@|$rate|" -e "s|@BURST@|$burst|" \
  -e "s|@CONNECTIONS@|$connections|" -e "s|@MAX_BODY_BYTES@|$body|" \
  -e "s|@MAX_UPLOAD_BYTES@|$upload|" -e "s|@UPPER_PROXIES@|$proxies|" \
  -e "s|@UPSTREAM@|$upstream|" -e "s|@GATEWAY@|$gateway|" -e "s|@DOCS@|$docs|" \
  -e "s|@ORIGINS@|$origins|" -e "s|@ACCESS_LOG@|$log|" -e "s|@HTTP2_LISTEN@|$listen|" -e "s|@HTTP2_ON@|$directive|" \
  -e "s|@HTTP@|$(listener "$http")|" -e "s|@HTTPS@|$(listener "$https")|" \
  -e "s|@REDIRECT_PORT@|$suffix|" "$here/nginx.conf.template" >"$run/nginx.conf"

nginx -t -q -e stderr -c "$run/nginx.conf"
[ "${1:-}" != --test ] || exit 0

# A renewed certificate is taken up without a connection lost. $$ is nginx itself, after `exec`.
seen=$(cksum "$tls/fullchain.pem" "$tls/privkey.pem")
while sleep "${EDGE_RELOAD_SECONDS:-60}" && kill -0 $$ 2>/dev/null; do
  now=$(cksum "$tls/fullchain.pem" "$tls/privkey.pem" 2>/dev/null) || continue
  if [ "$now" != "$seen" ] && nginx -t -q -e stderr -c "$run/nginx.conf"; then
    kill -HUP $$
    seen=$now
    echo 'edge: took up the new certificate' >&2
  fi
done &

exec nginx -e stderr -c "$run/nginx.conf" -g 'daemon off;'
