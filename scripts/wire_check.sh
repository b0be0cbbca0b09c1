#!/usr/bin/env bash
# Lints the protos and compares them with the last release, whose tag is vX.Y.Z: a change that
# breaks clients fails. Before the first release there is nothing to break. Called by `make lint`.
set -euo pipefail
cd "$(dirname "$0")/.."
buf=$PWD/.venv/bin/buf

(cd protos && "$buf" lint)
if ! release=$(git describe --tags --abbrev=0 --match 'v[0-9]*' 2>/dev/null); then
  echo "wire: lint passed; no release tag yet, so no check for breaking changes"
  exit 0
fi
"$buf" breaking protos --against ".git#tag=$release,subdir=protos"
echo "wire: lint passed; nothing breaks clients of $release"
