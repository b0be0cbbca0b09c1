# shellcheck shell=bash
# Where the data is, for backup.sh and restore.sh, which read this file: in the containers of the
# compose file, or, with ATRIUM_BACKUP_DATABASE_URL, on plain hosts (docs/deploy/backup.md).

# setting NAME DEFAULT: what the environment says, else .env, where the last one counts.
setting() {
  local value=${!1:-}
  if [[ -z $value && -f .env ]]; then
    value=$(sed -n "s/^$1=//p" .env | tail -n 1)
  fi
  echo "${value:-$2}"
}

DATABASE_URL=${ATRIUM_BACKUP_DATABASE_URL:-}
REDIS_URL=${ATRIUM_BACKUP_REDIS_URL:-}
REDIS_DIR=${ATRIUM_BACKUP_REDIS_DIR:-}
STATE_DIR=${ATRIUM_BACKUP_STATE_DIR:-}
VOICES_DIR=${ATRIUM_BACKUP_VOICES_DIR:-}
PROJECT=$(setting COMPOSE_PROJECT_NAME atrium)
export COMPOSE_FILE=${COMPOSE_FILE:-docker-compose.ai-services.yml}
# SQLAlchemy's name of the same address.
DATABASE_URL=${DATABASE_URL/#postgresql+psycopg:/postgresql:}
# The file of a SQLite database: what follows sqlite:/// in the gateway's address.
SQLITE=''
if [[ $DATABASE_URL =~ ^sqlite(\+[a-z]+)?:///(.+)$ ]]; then
  SQLITE=${BASH_REMATCH[2]}
fi

# What the state folder of `make run` has that is no state, has a file of its own, or is a secret.
# shellcheck disable=SC2034 # backup.sh reads it
WITHOUT=('--exclude=./gateway.db*' '--exclude=./*.lock' --exclude=./models --exclude=./cache
  --exclude=./logs --exclude=./voices --exclude=./jwt.secret --exclude=./key.pepper
  --exclude=./dev.key --exclude=./service.credential)

say() {
  echo "${0##*/}: $*" >&2
}

# stop CODE MESSAGE
stop() {
  say "$2"
  exit "$1"
}

on_hosts() {
  [[ -n $DATABASE_URL ]]
}

# postgres PROGRAM ARGUMENT...: a client of the database's own version.
postgres() {
  local program=$1
  shift
  if on_hosts; then
    "$program" --dbname "$DATABASE_URL" "$@"
  else
    docker compose exec -T postgres "$program" --username atrium --dbname atrium "$@"
  fi
}

on_sqlite() {
  [[ -n $SQLITE ]]
}

# sqlite copy FROM TO: a whole copy of a database that others may write to.
# sqlite rows FILE: something, if tenants or events are in it.
sqlite() {
  "${ATRIUM_PYTHON:-python3}" - "$@" <<'PY'
import sqlite3
import sys
from contextlib import closing
from pathlib import Path


def opened(file: str) -> sqlite3.Connection:
    return sqlite3.connect(f"{Path(file).absolute().as_uri()}?mode=ro", uri=True)


command, source, *target = sys.argv[1:]
if command == "copy":
    with closing(opened(source)) as read, closing(sqlite3.connect(target[0])) as written:
        read.backup(written)
        # One file, without a log beside it.
        written.execute("PRAGMA journal_mode = DELETE")
        (found,) = written.execute("PRAGMA quick_check").fetchone()
    if found != "ok":
        sys.exit(f"{source} is damaged: {found}")
elif Path(source).exists():
    with closing(opened(source)) as read:
        for table in ("tenants", "usage_events"):
            if read.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (table,)).fetchone():
                print(*read.execute(f"SELECT 1 FROM {table} LIMIT 1").fetchone() or "", end="")
PY
}

# archive_tool ARGUMENT...: pg_restore as a filter, which asks no database.
archive_tool() {
  if on_hosts; then
    pg_restore "$@"
  else
    docker compose exec -T postgres pg_restore "$@"
  fi
}

# has_redis: whether counters are shared at all.
has_redis() {
  ! on_hosts || [[ -n $REDIS_URL ]]
}

dump_redis() {
  if on_hosts; then
    redis-cli -u "$REDIS_URL" --rdb -
  else
    # shellcheck disable=SC2016 # expanded in the container
    docker compose exec -T redis sh -c \
      'REDISCLI_AUTH=$(cat /run/secrets/redis_password) exec redis-cli --rdb -'
  fi
}

# in_redis_data SCRIPT: runs it in the folder of a Redis that is stopped.
in_redis_data() {
  if on_hosts; then
    (cd "$REDIS_DIR" && sh -c "$1")
  else
    docker compose run --rm -T --no-deps --entrypoint sh --workdir /data redis -c "$1"
  fi
}

# in_volume state|voices PROGRAM ARGUMENT...: runs a program in a folder of data; whoever has it
# open may go on.
in_volume() {
  local which=$1 folder volume
  shift
  if on_hosts; then
    [[ $which == state ]] && folder=$STATE_DIR || folder=$VOICES_DIR
    (cd "$folder" && "$@")
    return
  fi
  [[ $which == state ]] && volume=gateway-data || volume=tts-data
  docker compose run --rm -T --no-deps --volume "${PROJECT}_$volume:/data" --workdir /data \
    --entrypoint "$1" migrate "${@:2}"
}

# has_folder state|voices: whether this installation has one.
has_folder() {
  ! on_hosts || { [[ $1 == state ]] && [[ -n $STATE_DIR ]]; } ||
    { [[ $1 == voices ]] && [[ -n $VOICES_DIR ]]; }
}
