#!/usr/bin/env bash
# tidy.sh BUILD: clang-tidy on the kernels, with the flags of the build tree. The largest files start first.
set -euo pipefail
cd "$(dirname "$0")/.."
mapfile -t files < <(git ls-files 'csrc/kernels/*.cpp' | xargs ls -S)
echo "clang-tidy: ${#files[@]} files"
status=0
findings=$(printf '%s\n' "${files[@]}" |
  xargs -n 1 -P "${JOBS:-2}" clang-tidy -p "$1" --quiet --warnings-as-errors='*' 2>&1) || status=1
grep -vE 'warnings? (generated|treated)|^Suppressed|^Use -(header|system)|Processing file' <<< "$findings" || true
exit "$status"
