#!/usr/bin/env bash
# Builds the wheel and the source archive into dist/.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/lib.sh
. scripts/lib.sh
ensure_venv

rm -rf dist
"$PYTHON_OF_VENV" -m build --no-isolation --outdir dist . >&2
ls -1 dist
