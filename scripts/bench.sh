#!/usr/bin/env bash
# Runs a benchmark of bench/: scripts/bench.sh NAME [--json]; without a name it lists them.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/lib.sh
. scripts/lib.sh
ensure_venv

exec "$PYTHON_OF_VENV" -m bench "$@"
