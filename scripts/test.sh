#!/usr/bin/env bash
# Everything that must hold before a change goes in. Arguments go to pytest:
#   scripts/test.sh tests/unit -k audit
# Each tool runs, whatever the one before it said; one failure fails.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
# shellcheck source=scripts/lib.sh
. scripts/lib.sh
ensure_venv || exit 1

failed=()
check() {
  local name=$1
  shift
  printf '\n=== %s\n' "$name"
  "$@" || failed+=("$name")
}

export PATH="$VENV/bin:$PATH"
check "ruff check" ruff check .
check "ruff format" ruff format --check .
check "mypy" mypy
check "import-linter" lint-imports --no-logo
check "generated code is what proto/ gives" scripts/generate-proto.sh --check
covered() {
  python -m pytest -q "tests/unit/$1" --cov="booking_worker.$1" --cov-fail-under=100 \
    --cov-report=term:skip-covered
}
check "domain/ is covered by its own tests" covered domain
# Some 20 s, as it runs on real engines: not for those who want a few tests only.
[ $# -gt 0 ] || check "queue/ is covered by its own tests" covered queue
# Most of a test is waiting for servers that start, stop and fail over: four at a time fill two cores.
# What fails beside others runs once more, alone: a defect fails again, a machine too busy does not.
everything() {
  python -m pytest -n 4 --dist worksteal && return
  printf '\nonce more, alone:\n'
  python -m pytest --last-failed --last-failed-no-failures none
}
if [ $# -gt 0 ]; then
  check "pytest" python -m pytest "$@"
else
  check "pytest" everything
fi

if [ ${#failed[@]} -gt 0 ]; then
  printf '\nfailed: %s\n' "$(IFS=,; echo "${failed[*]}")"
  exit 1
fi
