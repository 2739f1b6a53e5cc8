#!/usr/bin/env bash
# Generates src/booking_worker/proto/ from proto/*.proto: messages, gRPC classes, types for mypy.
# The same input gives the same output. With --check it changes nothing and fails on a difference.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/lib.sh
. scripts/lib.sh
ensure_venv

# rate_limiter.proto waits for the first room that calls it.
files=(admin booking booking_worker realtime sandbox ticket)

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# Compiled under the package's own path: imports come out as `booking_worker.proto.x_pb2`, and the
# names in protobuf's process-wide pool don't meet a user's own booking.proto.
mkdir -p "$work/in/booking_worker/proto" "$work/out"
paths=()
for file in "${files[@]}"; do
  cp "proto/$file.proto" "$work/in/booking_worker/proto/"
  paths+=("$work/in/booking_worker/proto/$file.proto")
done

PATH="$VENV/bin:$PATH" "$PYTHON_OF_VENV" -m grpc_tools.protoc -I"$work/in" \
  --python_out="$work/out" --grpc_python_out="$work/out" \
  --mypy_out=quiet:"$work/out" --mypy_grpc_out=quiet:"$work/out" "${paths[@]}"

made="$work/out/booking_worker/proto"
target=src/booking_worker/proto
if [ "${1-}" = --check ]; then
  diff -r --exclude=__init__.py --exclude=__pycache__ "$made" "$target"
  exit
fi
rm -f "$target"/*_pb2*.py "$target"/*_pb2*.pyi
cp "$made"/* "$target/"
say "generated $(find "$made" -type f | wc -l | tr -d ' ') files in $target"
