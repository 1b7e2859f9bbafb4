#!/usr/bin/env bash
# Prepares a machine: Debian packages where it may, and .venv with the versions of requirements.lock.
# Idempotent and quick when nothing is missing. TORCHEXT_PYTHON=/path/to/python uses that environment
# instead of .venv and installs nothing into it.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { echo "setup: $*"; }
fail() { echo "setup: $*" >&2; exit 1; }

# ---- Debian packages. Only what nothing else can give: compiler, Python headers, GoogleTest.
missing=()
need() { missing+=("$1"); }
command -v g++ > /dev/null || command -v c++ > /dev/null || need g++
command -v make > /dev/null || need make
command -v git > /dev/null || need git
[ -f /usr/include/gtest/gtest.h ] || [ -f /usr/local/include/gtest/gtest.h ] || need libgtest-dev

# The first Python >= 3.11 that has its headers; a shim that does not run does not count.
base_python=
for candidate in python3.11 python3.12 python3.13 python3.14 python3; do
  if "$candidate" -c 'import os, sys, sysconfig
sys.exit(sys.version_info < (3, 11) or not os.path.exists(sysconfig.get_path("include") + "/Python.h"))' 2> /dev/null; then
    base_python=$(command -v "$candidate")
    break
  fi
done
if [ -z "${TORCHEXT_PYTHON:-}" ]; then
  [ -n "$base_python" ] || need python3-dev
  [ -n "$base_python" ] && "$base_python" -c 'import ensurepip, venv' 2> /dev/null || need python3-venv
fi

if [ "${#missing[@]}" -gt 0 ]; then
  sudo=
  [ "$(id -u)" = 0 ] || sudo="sudo -n"
  command_line="apt-get update && apt-get install -y --no-install-recommends ${missing[*]}"
  if command -v apt-get > /dev/null && { [ -z "$sudo" ] || $sudo true 2> /dev/null; }; then
    say "installing Debian packages: ${missing[*]}"
    if ! { $sudo apt-get update -qq &&
      DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends "${missing[@]}" > /dev/null; }; then
      # GoogleTest is needed by the C++ tests only; make ctest says so again.
      [ "${missing[*]}" = libgtest-dev ] || fail "apt-get failed; run as root: $command_line"
      say "apt-get failed, going on without GoogleTest"
    fi
  else
    say "missing: ${missing[*]}. Run as root: $command_line"
    # GoogleTest is needed by the C++ tests only; make ctest says so again.
    [ "${missing[*]}" = libgtest-dev ] || exit 1
  fi
fi
command -v nvcc > /dev/null || say "no nvcc: the CUDA kernels will not be compiled (the CPU part needs none)"

# ---- an environment that exists already
if [ -n "${TORCHEXT_PYTHON:-}" ] && [ "$TORCHEXT_PYTHON" != "$PWD/.venv/bin/python" ]; then
  "$TORCHEXT_PYTHON" - <<'P' || fail "TORCHEXT_PYTHON=$TORCHEXT_PYTHON cannot build torchext (see above)"
import importlib.util, os, shutil, sys
if sys.version_info < (3, 11):
    sys.exit(f"Python >= 3.11 is needed, this is {sys.version.split()[0]}")
absent = [m for m in ("torch", "numpy", "sklearn", "pytest") if importlib.util.find_spec(m) is None]
path = os.path.dirname(sys.executable) + os.pathsep + os.environ.get("PATH", "")
absent += [t for t in ("cmake", "ninja") if shutil.which(t, path=path) is None]
if absent:
    sys.exit("not found: " + ", ".join(absent) + "; install with: " + sys.executable + " -m pip install -r requirements.lock")
P
  exit 0
fi

# ---- .venv from the lock file
[ -n "$base_python" ] || base_python=$(command -v python3.11 || command -v python3)
stamp=.venv/.setup-stamp
wanted="$(sha256sum requirements.lock | cut -d' ' -f1)"
if [ -x .venv/bin/python ] && [ "$(cat "$stamp" 2> /dev/null)" = "$wanted" ]; then
  exit 0
fi
start=$SECONDS
if ! .venv/bin/python -c '' 2> /dev/null; then
  say "creating .venv with $("$base_python" --version)"
  rm -rf .venv
  "$base_python" -m venv .venv
fi
rm -f "$stamp"
say "installing requirements.lock into .venv: torch and its CUDA libraries are 3 GB to download, a few minutes"
.venv/bin/python -m pip install -q --disable-pip-version-check "$(grep '^uv==' requirements.lock)"
if ! .venv/bin/uv pip install -q --python .venv/bin/python -r requirements.lock; then
  say "uv could not install; trying pip"
  .venv/bin/python -m pip install -q --disable-pip-version-check -r requirements.lock
fi
echo "$wanted" > "$stamp"
say "done in $((SECONDS - start)) s: $(.venv/bin/python -c 'import torch; print("torch", torch.__version__)')"
