#!/usr/bin/env bash
# clang-tidy on the kernels, with the flags of the build tree in $1.
set -euo pipefail
cd "$(dirname "$0")/.."
mapfile -t files < <(git ls-files 'csrc/kernels/*.cpp')
printf '%s\0' "${files[@]}" | xargs -0 -n 4 -P "${JOBS:-2}" clang-tidy -p "$1" --quiet --warnings-as-errors='*' 2>&1 |
  grep -vE 'warnings? (generated|treated)|^Suppressed|^Use -(header|system)' || true
exit "${PIPESTATUS[1]}"
