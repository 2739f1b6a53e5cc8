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
again=
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
# What fails beside others runs once more, alone: most defects fail again, a machine too busy does not.
# The end names what ran twice, as it may be a race.
run_tests() {
  python -m pytest -n 4 --dist worksteal "$@"
  local said=$?
  [ $said -eq 1 ] || return $said # 1: tests failed. Anything else is no list of failed tests.
  again+=$(python -c 'import json; print("\n  ".join(["", *json.load(open(".pytest_cache/v/cache/lastfailed"))]))')
  printf '\nonce more, alone:\n'
  python -m pytest --last-failed --last-failed-no-failures none "$@"
}
# What these two rooms do is shown by their own tests, to the last line. Some lines are for what comes
# now and then only, such as a slot that moves during a look: what the first run missed a second adds.
covered() {
  covered_once "$1" || covered_once "$1"
}
covered_once() {
  run_tests "tests/unit/$1" --cov="booking_worker.$1" --cov-report= --cov-append &&
    coverage report --fail-under=100 --skip-covered --include="src/booking_worker/$1/*"
}
if [ $# -gt 0 ]; then
  check "pytest" python -m pytest "$@"
else
  coverage erase
  check "domain/ is covered by its own tests" covered domain
  check "queue/ is covered by its own tests" covered queue
  check "all other tests" run_tests --ignore=tests/unit/domain --ignore=tests/unit/queue
fi

[ -z "$again" ] || printf '\nfailed beside others, and ran again alone:%s\n' "$again"
if [ ${#failed[@]} -gt 0 ]; then
  printf '\nfailed: %s\n' "$(IFS=,; echo "${failed[*]}")"
  exit 1
fi
