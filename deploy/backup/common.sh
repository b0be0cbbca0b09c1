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

# What the state folder has that is no state, or a secret.
# shellcheck disable=SC2034 # backup.sh reads it
WITHOUT=('--exclude=./gateway.db*' '--exclude=./*.lock' --exclude=./jwt.secret --exclude=./key.pepper)

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
