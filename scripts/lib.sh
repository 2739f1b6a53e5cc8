# Shared by the scripts beside it; sourced with the repository as the working directory.
# ensure_venv makes .venv, or brings it up to date, with exactly what requirements/dev.txt pins.
# What it says goes to standard error: standard output is the command's own.
# shellcheck shell=bash

VENV="$PWD/.venv"
PYTHON_OF_VENV="$VENV/bin/python"

say() { printf '%s\n' "$*" >&2; }
die() { say "error: $*"; exit 1; }

new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }

# The Python to make .venv with: $PYTHON when set, else the first that is 3.11 or newer.
find_python() {
  local candidate
  if [ -n "${PYTHON-}" ]; then
    new_enough "$PYTHON" || die "PYTHON=$PYTHON is not a Python of 3.11 or newer"
    printf '%s\n' "$PYTHON"
    return
  fi
  for candidate in python3 python3.14 python3.13 python3.12 python3.11; do
    if new_enough "$candidate"; then
      printf '%s\n' "$candidate"
      return
    fi
  done
  die "no Python of 3.11 or newer on the PATH (looked for python3, python3.14 ... python3.11); install one, or name it: PYTHON=/path/to/python3.12 $0"
}

ensure_venv() {
  local stamp="$VENV/.stamp" wanted python install
  # With the path: a copy's .venv would run the code that it was copied from.
  wanted="$PWD $(cat requirements/dev.txt pyproject.toml | cksum)"
  if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ] && new_enough "$PYTHON_OF_VENV"; then
    return
  fi
  if ! new_enough "$PYTHON_OF_VENV" || ! grep -qsF "$PWD " "$stamp"; then
    python=$(find_python) || exit 1
    say "making .venv with $("$python" --version) ..."
    "$python" -m venv --clear "$VENV" >&2 ||
      die "'$python -m venv' failed; on Debian and Ubuntu: apt-get install python3-venv"
  fi
  rm -f "$stamp"
  say "installing what requirements/dev.txt pins (once, and again when it changes) ..."
  if command -v uv >/dev/null 2>&1; then
    install=(uv pip install --quiet --python "$PYTHON_OF_VENV")
  else
    install=("$PYTHON_OF_VENV" -m pip install --quiet --disable-pip-version-check --no-input)
  fi
  # The file is the whole closure. Left to resolve, pip looks at the newest release of what is asked
  # for with an extra before it looks at the pin, and stops: that one has no hash here.
  "${install[@]}" --no-deps --require-hashes -r requirements/dev.txt >&2 &&
    "${install[@]}" --no-deps --no-build-isolation -e . >&2 ||
    die "could not install; what the installer said is above"
  printf '%s' "$wanted" >"$stamp"
  say "ready: $VENV"
}
