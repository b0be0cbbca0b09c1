#!/usr/bin/env bash
# Brings a backup of backup.sh back: into the containers of the compose file, whose gateway and
# services it stops before, or onto plain hosts, where nothing of the suite may run.
#
#   deploy/restore.sh [--force] [--redis] BACKUP
#
# Without --force it touches nothing if the database, the spool or the voices are not empty.
# Redis is left as it is: the gateway counts anew from the ledger what Redis does not know.
# --redis brings back the dump, too, into the folder of a Redis that is stopped.
# Exit status: 0 done; 1 failed; 2 wrong arguments; 4 the backup is damaged; 5 there is data.
set -euo pipefail

# shellcheck source=deploy/backup/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/backup/common.sh"

force='' with_redis='' backup=''
while (($#)); do
  case $1 in
    --force) force=1 ;;
    --redis) with_redis=1 ;;
    -*) stop 2 "unknown option $1" ;;
    *) backup=$1 ;;
  esac
  shift
done
[[ -n $backup ]] || stop 2 'which backup?'
[[ -s $backup/SHA256SUMS ]] || stop 4 "$backup is no complete backup"
(cd "$backup" && sha256sum --check --quiet --strict SHA256SUMS) >&2 ||
  stop 4 "$backup is damaged; nothing was touched"
backup=$(cd "$backup" && pwd)
database=database.dump
! on_sqlite || database=database.sqlite
[[ -s $backup/$database ]] || stop 4 "there is no $database in it: it is of another kind of database"
if on_sqlite && lock=$(dirname "$SQLITE")/gateway.lock && [[ -e $lock ]]; then
  flock --nonblock "$lock" true || stop 1 'a gateway runs over this database; nothing was touched'
fi

if ! on_hosts; then
  docker compose --profile all stop gateway text2image img2img img2text tts stt llm
  docker compose up --detach --wait --no-deps postgres
fi

tables="SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"
kept="SELECT (SELECT count(*) FROM tenants) + (SELECT count(*) FROM usage_events)"
has_rows() {
  if on_sqlite; then
    [[ -n $(sqlite rows "$SQLITE") ]]
    return
  fi
  [[ $(postgres psql -qAtX -c "$tables") != 0 ]] && [[ $(postgres psql -qAtX -c "$kept") != 0 ]]
}

# holds state|voices PATH: whether there is anything.
holds() {
  [[ -e $backup/$1.tar.gz ]] && [[ -n $(in_volume "$1" sh -c "find $2 -type f -size +0 2>/dev/null") ]]
}

voices_at=.
on_hosts || voices_at=voices
if on_hosts; then
  for folder in ${STATE_DIR:+"$STATE_DIR"} ${VOICES_DIR:+"$VOICES_DIR"}; do
    mkdir -p "$folder"
  done
fi
if [[ -z $force ]]; then
  found=()
  if has_rows; then found+=('the database'); fi
  if has_folder state && holds state 'spool*'; then found+=('the spool'); fi
  if has_folder voices && holds voices "$voices_at"; then found+=('the voices'); fi
  ((${#found[@]} == 0)) || stop 5 "there is data (${found[*]}); --force replaces it"
fi

# One transaction: everything, or what was there before. pg_restore that fails sends no COMMIT.
emptied() {
  cat <<'SQL'
BEGIN;
DO $$
DECLARE
  one record;
BEGIN
  IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'atrium_tenant') THEN
    CREATE ROLE atrium_tenant NOLOGIN;
  END IF;
  IF NOT pg_has_role(current_user, 'atrium_tenant', 'MEMBER') THEN
    GRANT atrium_tenant TO CURRENT_USER;
  END IF;
  FOR one IN SELECT oid::regclass AS name FROM pg_class
      WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') LOOP
    EXECUTE format('DROP TABLE IF EXISTS %s CASCADE', one.name);
  END LOOP;
  FOR one IN SELECT oid::regclass AS name FROM pg_class
      WHERE relnamespace = 'public'::regnamespace AND relkind = 'S' LOOP
    EXECUTE format('DROP SEQUENCE IF EXISTS %s CASCADE', one.name);
  END LOOP;
  FOR one IN SELECT oid::regprocedure AS name FROM pg_proc
      WHERE pronamespace = 'public'::regnamespace LOOP
    EXECUTE format('DROP FUNCTION IF EXISTS %s CASCADE', one.name);
  END LOOP;
  FOR one IN SELECT oid::regtype AS name FROM pg_type
      WHERE typnamespace = 'public'::regnamespace AND typtype IN ('d', 'e') LOOP
    EXECUTE format('DROP TYPE IF EXISTS %s CASCADE', one.name);
  END LOOP;
END
$$;
SQL
}
# Beside the old file, then in its place: all of it, or what was there before.
restore_sqlite() {
  mkdir -p "$(dirname "$SQLITE")" && rm -f "$SQLITE.new" &&
    sqlite copy "$backup/$database" "$SQLITE.new" && sync "$SQLITE.new" &&
    rm -f "$SQLITE-wal" "$SQLITE-shm" && mv -f "$SQLITE.new" "$SQLITE"
}
restore_database() {
  {
    emptied
    archive_tool --no-owner --file - <"$backup/$database" && echo 'COMMIT; SELECT 1;'
  } | postgres psql -qAtX -v ON_ERROR_STOP=1 | tail -n 1
}
if on_sqlite; then
  restore_sqlite || stop 1 'the copy could not be restored; the database is as it was'
else
  [[ $(restore_database) == 1 ]] || stop 1 'the dump could not be restored; the database is as it was'
fi

# unpack state|voices FOLDER...: in the place of what is there.
unpack() {
  local which=$1
  shift
  in_volume "$which" sh -c "rm -rf $* && tar -xzf - --no-same-owner" <"$backup/$which.tar.gz"
}
if has_folder state && [[ -e $backup/state.tar.gz ]]; then
  unpack state './spool*'
fi
if has_folder voices && [[ -e $backup/voices.tar.gz ]]; then
  if on_hosts; then unpack voices './*'; else unpack voices ./voices; fi
fi

# A Redis with an append-only file reads nothing else: the dump is turned into one.
fill=$(
  cat <<'SH'
set -eu
[ -z "$(ls -A)" ] || [ -n "$FORCE" ] || exit 5
rm -rf appendonlydir dump.rdb
cat >dump.rdb
socket=$(mktemp -d)/s
trap 'rm -rf "$(dirname "$socket")" dump.rdb' EXIT
redis-server --dir "$PWD" --port 0 --unixsocket "$socket" --save '' --appendonly no \
  --daemonize yes >/dev/null
ask() { redis-cli -s "$socket" "$@" 2>/dev/null; }
until ask PING | grep -q PONG; do sleep 0.05; done
ask CONFIG SET appendonly yes | grep -q OK
while ask INFO persistence | grep -Eq 'aof_rewrite_(in_progress|scheduled):1'; do sleep 0.05; done
ask INFO persistence | grep -q 'aof_last_bgrewrite_status:ok'
ask SHUTDOWN NOSAVE || true
while [ -S "$socket" ]; do sleep 0.05; done
SH
)
if [[ -n $with_redis ]]; then
  [[ -e $backup/redis.rdb ]] || stop 1 'there is no dump of Redis in it'
  if on_hosts; then
    [[ -d $REDIS_DIR ]] || stop 2 '--redis needs ATRIUM_BACKUP_REDIS_DIR, the folder of its data'
  else
    docker compose stop redis
  fi
  in_redis_data "FORCE='$force'
$fill" <"$backup/redis.rdb" || stop 1 "Redis was not filled (status $?); the rest is restored"
fi

say "restored $backup. What is not in it: $(sed -n 's/^not in it: //p' "$backup/ABOUT")"
if on_hosts; then
  say 'next: atrium db upgrade, then start the suite'
else
  say 'next: docker compose up -d (migrations run by themselves)'
fi
