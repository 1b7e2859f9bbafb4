// Every op of the library, once, alphabetical. A released schema is frozen: a change is a new
// overload. Ops that start with an underscore are private.
#include "stable.h"

STABLE_TORCH_LIBRARY(torchext, m) {
  m.def("_cpu_isa() -> str");              // instruction set in use
  m.def("_force_isa(str isa) -> bool");    // switches it in this process, for tests
  m.def("_philox(Tensor key, int blocks, int stream, int draw) -> Tensor");  // raw words, for tests
  m.def("fold_in(Tensor key, int data) -> Tensor");  // child key
  m.def("fold_in.Tensor(Tensor key, Tensor data) -> Tensor");
  m.def("split(Tensor key, int n) -> Tensor");  // n child keys, one a row
}
