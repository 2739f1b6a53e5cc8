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
# Most of a test is waiting for servers that start, stop and fail over: four at a time fill two cores.
at_once=(-n 4 --dist worksteal)
covered() {
  python -m pytest -q "${at_once[@]}" "tests/unit/$1" --cov="booking_worker.$1" --cov-fail-under=100 \
    --cov-report=term:skip-covered
}
check "domain/ is covered by its own tests" covered domain
# Some 20 s, as it runs on real engines: not for those who want a few tests only.
[ $# -gt 0 ] || check "queue/ is covered by its own tests" covered queue
if [ $# -gt 0 ]; then
  check "pytest" python -m pytest "$@"
else
  check "pytest" python -m pytest "${at_once[@]}"
fi

if [ ${#failed[@]} -gt 0 ]; then
  printf '\nfailed: %s\n' "$(IFS=,; echo "${failed[*]}")"
  exit 1
fi
