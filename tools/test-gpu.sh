#!/usr/bin/env bash
# test-gpu.sh PYTHON OUT: everything that needs a GPU, on the extension that is built in place. Prints what
# passed, failed and was skipped; the logs are in OUT. Exit status 1 if anything failed.
set -uo pipefail
cd "$(dirname "$0")/.."
python=$1 out=$2
mkdir -p "$out"
failed=() skipped=() passed=()

step() { # step NAME COMMAND...
  local name=$1 start=$SECONDS
  shift
  echo "== $name"
  if "$@" > "$out/$name.log" 2>&1; then
    passed+=("$name")
    tail -n 1 "$out/$name.log"
    echo "   $((SECONDS - start)) s"
  else
    failed+=("$name")
    tail -n 40 "$out/$name.log"
    echo "   FAILED after $((SECONDS - start)) s, see $out/$name.log"
  fi
}
skip() { skipped+=("$1: $2"); echo "== $1 SKIPPED: $2"; }

"$python" - <<'P' || exit 1
import sys, torch
if not torch.cuda.is_available():
    sys.exit(f"test-gpu: torch {torch.__version__} sees no GPU (driver, or a build of torch without CUDA)")
from torchext import _build, _load
if not _build.CUDA:
    sys.exit("test-gpu: torchext was built without CUDA; is nvcc on PATH?")
_load.require_cuda()
print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, CUDA {torch.version.cuda}")
P

step golden-and-parity "$python" -m pytest -q -m cuda -ra -p no:cacheprovider tests/python

# Memory errors, races in shared memory, reads of what nobody wrote: small inputs to every kernel.
tool=$(command -v compute-sanitizer || ls "${CUDA_HOME:-/usr/local/cuda}/bin/compute-sanitizer" 2> /dev/null)
for check in memcheck racecheck initcheck; do
  if [ -z "$tool" ]; then
    skip "$check" "compute-sanitizer is not installed (it comes with the CUDA toolkit)"
    continue
  fi
  # No caching: every tensor is an allocation of its own, with bounds that the tool knows.
  step "$check" env PYTORCH_NO_CUDA_MEMORY_CACHING=1 "$tool" --tool "$check" --error-exitcode 9 \
    "$python" -m pytest -q -m cuda -p no:cacheprovider tests/python \
    -k "test_small or (test_cuda_samples and same_bits)"
done

step demo "$python" -m training.linear.demo --device cuda --out "$out/demo"

echo
echo "passed: ${passed[*]:-nothing}"
for s in "${skipped[@]}"; do echo "SKIPPED $s"; done
for f in "${failed[@]}"; do echo "FAILED $f"; done
[ "${#failed[@]}" = 0 ]
