#!/usr/bin/env bash
# run.sh PYTHON BUILD: installs the wheel of dist/ into a clean environment and uses it from outside
# the tree; installs the C++ package of BUILD and builds and runs the examples against it.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
python=$1
build=$(cd "$2" && pwd)
version=$(cat "$root/version.txt")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

wheel=("$root"/dist/*.whl)
[ "${#wheel[@]}" = 1 ] || { echo "expected one wheel in dist/, found ${#wheel[@]}" >&2; exit 1; }
[ "$(uname -m)" != x86_64 ] || [ "$(basename "${wheel[0]}")" = "torchext_zipml-$version-cp311-abi3-linux_x86_64.whl" ] ||
  { echo "unexpected wheel name $(basename "${wheel[0]}")" >&2; exit 1; }
"$python" - "${wheel[0]}" <<'P'
import sys, zipfile
names = zipfile.ZipFile(sys.argv[1]).namelist()
outside = [n for n in names if not n.startswith(("torchext/", "torchext_zipml-"))]
assert not outside, f"files outside the package: {outside}"
for wanted in ("torchext/_C.abi3.so", "torchext/_build.py", "torchext/py.typed", "torchext/ops.py"):
    assert wanted in names, f"{wanted} is missing"
print(f"wheel: {len(names)} files")
P

# One ABI for every Python, and nothing in it that a wheel should not hold.
for tool in abi3audit check-wheel-contents; do
  PATH="$(dirname "$python"):$PATH" command -v "$tool" > /dev/null ||
    { echo "$tool was not found; install it with: $python -m pip install $tool" >&2; exit 1; }
done
PATH="$(dirname "$python"):$PATH" abi3audit --strict --summary "${wheel[0]}"
PATH="$(dirname "$python"):$PATH" check-wheel-contents "${wheel[0]}"

echo "clean environment"
"$python" -m venv "$work/venv"
installed="$work/venv/bin/python"
torch_version=$("$python" -c 'import torch; print(torch.__version__.split("+")[0])')
if command -v uv > /dev/null; then
  uv pip install -q --python "$installed" "torch==$torch_version" "${wheel[0]}"
else
  "$installed" -m pip install -q "torch==$torch_version" "${wheel[0]}"
fi
# From an empty folder, so that nothing of the source tree can be imported by accident.
(cd "$work" && "$installed" "$root/tests/install/use_wheel.py" "$root" "$version")

echo "C++ package"
cmake --install "$build" --component kernels --prefix "$work/prefix" > /dev/null
cmake -S "$root/examples/cpp/kernels" -B "$work/example" -G Ninja -DCMAKE_PREFIX_PATH="$work/prefix" > "$work/log" 2>&1 ||
  { cat "$work/log"; exit 1; }
cmake --build "$work/example" > "$work/log" 2>&1 || { cat "$work/log"; exit 1; }
"$work/example/keyed_rounding" | tee "$work/out"
grep -qx -- '-7 1 -5 3 -3 6 0 -7 2 -5 4 -2 7 0 -7 2 -4 5 -1 7 ' "$work/out"
# An absent component and a wrong major version are refused in one sentence.
mkdir "$work/refused"
for request in "torchext CONFIG REQUIRED COMPONENTS absent" "torchext 99 CONFIG REQUIRED COMPONENTS kernels"; do
  printf 'cmake_minimum_required(VERSION 3.25)\nproject(x LANGUAGES CXX)\nfind_package(%s)\n' "$request" \
    > "$work/refused/CMakeLists.txt"
  if cmake -S "$work/refused" -B "$work/refused/b" -DCMAKE_PREFIX_PATH="$work/prefix" > "$work/log" 2>&1; then
    echo "find_package($request) should fail" >&2
    exit 1
  fi
done
echo "ops without Python"
trap 'cmake -DTORCHEXT_OPS_LIB=OFF "$build" > /dev/null; rm -rf "$work"' EXIT
{ cmake -DTORCHEXT_OPS_LIB=ON "$build" && cmake --build "$build" --target torchext_ops &&
  cmake --install "$build" --component ops --prefix "$work/prefix"; } > "$work/log" 2>&1 || { cat "$work/log"; exit 1; }
library="$work/prefix/lib/libtorchext_ops.so"
if nm -D --undefined-only "$library" | grep -w '_\?Py[A-Z]\w*'; then
  echo "libtorchext_ops.so needs the Python symbols above" >&2
  exit 1
fi
torch=$("$python" -c 'import os, torch; print(os.path.dirname(torch.__file__))')
c++ -std=c++20 -isystem "$torch/include" -isystem "$torch/include/torch/csrc/api/include" \
  "$root/examples/cpp/ops/fold_in.cpp" -o "$work/fold_in" -Wl,--no-as-needed "$library" \
  -L "$torch/lib" -ltorch -ltorch_cpu -lc10
LD_LIBRARY_PATH="$work/prefix/lib:$torch/lib" "$work/fold_in" | tee "$work/out"
[ "$(tr '\n' ' ' < "$work/out")" = "c9739cd5eacbd08f e77ddc74207102a9 955cdfb874ac609b " ]

if grep -rIl "$root" "$work/prefix" | grep .; then
  echo "the installed files above name the source tree" >&2
  exit 1
fi
echo "install test passed"
