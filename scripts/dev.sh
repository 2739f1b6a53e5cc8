#!/usr/bin/env bash
# Sets up what is missing, then runs the service with stand-ins for the services that it calls.
# With arguments it runs `booking-worker` with them instead: scripts/dev.sh demo --buyers 500
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/lib.sh
. scripts/lib.sh
ensure_venv

[ $# -gt 0 ] || set -- serve --sandbox
# What the service tells to type in another terminal: `booking-worker` is on nobody's PATH here.
export BOOKING_WORKER_CALLED_AS=./scripts/dev.sh
exec "$VENV/bin/booking-worker" "$@"
