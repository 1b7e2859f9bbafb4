#!/usr/bin/env bash
# check-spills.sh BUILD ENVIRONMENT: fails if a CUDA kernel of the build tree keeps registers in local memory.
set -euo pipefail
library=$1/libtorchext_cuda_kernels.a
[ -f "$library" ] || { echo "no CUDA kernels were built in $1" >&2; exit 1; }
# The toolkit's, or the one that comes with torch's compiler.
tool=$(command -v cuobjdump || find "$2" -path '*nvidia/bin/cuobjdump' | head -n 1)
[ -n "$tool" ] || { echo "cuobjdump was not found on PATH or in $2: cannot check for spills" >&2; exit 1; }
usage=$("$tool" -res-usage "$library" 2>&1 | grep -E 'Function|REG' || true)
[ -n "$usage" ] || { echo "cuobjdump printed no kernel of $library" >&2; exit 1; }
echo "$usage" | awk '
  /Function/ { name = $2 }
  /REG:/ {
    match($0, /REG:[0-9]+/); regs = substr($0, RSTART + 4, RLENGTH - 4)
    match($0, /LOCAL:[0-9]+/); local_bytes = substr($0, RSTART + 6, RLENGTH - 6)
    match($0, /STACK:[0-9]+/); stack = substr($0, RSTART + 6, RLENGTH - 6)
    ++kernels; if (regs + 0 > most) most = regs + 0
    if (local_bytes + 0 > 0 || stack + 0 > 0) { print "spills: " name " " $0; bad = 1 }
  }
  END { print kernels " CUDA kernels, at most " most " registers, " (bad ? "SPILLS" : "no spills"); exit bad || !kernels }'
