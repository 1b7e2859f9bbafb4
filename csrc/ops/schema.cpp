// Every op of the library, once, alphabetical. A released schema is frozen: a change is a new
// overload. Ops that start with an underscore are private.
#include "stable.h"

#ifndef TX_LIBRARY
#define TX_LIBRARY torchext  // the tests define the same ops under another name, too
#endif
#define TX_DEFINE_OPS(library, m) STABLE_TORCH_LIBRARY(library, m)

TX_DEFINE_OPS(TX_LIBRARY, m) {
  m.def(
      "_code_dot(Tensor codes, int rows, int cols, int bits, Tensor grid, Tensor table, "
      "Tensor(a!) x, int digits) -> Tensor");  // codes times vectors, which are rounded in place
  m.def(
      "_code_gram(Tensor codes, int rows, int cols, int bits, Tensor grid, Tensor table, "
      "Tensor(a!) x, Tensor? offset, Tensor? shift, Tensor? weight, int digits) -> Tensor");  // both
                                                                                              // in
                                                                                              // one
                                                                                              // read
  m.def(
      "_code_sum(Tensor codes, int rows, int cols, int bits, Tensor grid, Tensor table, Tensor e, "
      "int digits) -> Tensor");  // transposed codes times vectors
  m.def(
      "_column_levels(Tensor x, Tensor? rows, Tensor mean, Tensor scale, Tensor bounds, int "
      "levels, str kind, int iterations) -> (Tensor, Tensor)");  // lloyd, nearest, stochastic, both
  m.def(
      "_column_stats(Tensor x, Tensor? weight, Tensor? centre, Tensor(a!) state) -> "
      "Tensor");               // pass 1 of a store; index of a NaN/Inf or -1
  m.def("_cpu_isa() -> str");  // instruction set in use
  m.def(
      "_encode(Tensor x, Tensor mean, Tensor scale, Tensor grid, Tensor levels, str mode, int "
      "bits, Tensor key, "
      "int row0, Tensor? rows, int copy, Tensor(a!) codes, Tensor? y, Tensor? weight, Tensor? x0, "
      "Tensor? "
      "intercept, str loss, "
      "Tensor? bounds, Tensor(b!) sums, Tensor(c!) totals, Tensor(d!) clipped) -> ()");  // pass 2
                                                                                         // of a
                                                                                         // store
  m.def(
      "_exact_pass(Tensor x, Tensor w, Tensor offset, Tensor y, Tensor? weight, str loss, "
      "Tensor(a!) z, Tensor(b!) gradient, Tensor(c!) total) -> ()");  // loss and gradient on full
                                                                      // rows
  m.def("_force_isa(str isa) -> bool");  // switches it in this process, for tests
  m.def(
      "_foreach_square_sums(Tensor[] x, Tensor[] center, float weight_decay) -> Tensor");  // norms
  m.def(
      "_grid_rows(Tensor x, Tensor mean, Tensor inverse, float top, Tensor(a!) codes, Tensor(b!) "
      "squares) -> ()");  // rows as codes of one spacing
  m.def(
      "_halp_epoch(Tensor x, Tensor phi, Tensor? weight, str loss, Tensor alpha_g, float alpha, "
      "float l2, float dx, float dz, int steps, int batch, int refresh, str noise, Tensor(a!) z, "
      "Tensor(b!)? z_intercept, Tensor(c!) clips, Tensor(d!)? gammas, Tensor key, int stream=0) "
      "-> ()");  // inner epoch of HALP on integers
  m.def("_histogram_add(Tensor x, Tensor state, Tensor(a!) counts) -> ()");  // rows of a block
  m.def(
      "_histogram_levels(Tensor state, Tensor counts, Tensor bounds, int levels, str kind, int "
      "iterations) -> (Tensor, Tensor)");  // as _column_levels, of what was added
  m.def(
      "_histogram_new(Tensor pilot, Tensor mean, Tensor scale, Tensor bounds, int levels) -> "
      "Tensor");  // bins of every column
  m.def(
      "_levels_work(Tensor x, int levels, str objective, str method) -> Tensor");  // of benchmarks
  m.def(
      "_loss_terms(Tensor z, Tensor y, Tensor? weight, Tensor? moved, Tensor? score, Tensor? "
      "length, str loss, Tensor(a!)? slopes) -> Tensor");  // slopes and sums of a line search
  m.def("_pack_codes(Tensor codes, int bits, str layout) -> Tensor");  // row-major codes into a
                                                                       // layout
  m.def(
      "_permute_tiles(Tensor packed, Tensor order, int cols, int bits, Tensor(a!) out) -> ()");  // rows of tile4
  m.def("_philox(Tensor key, int blocks, int stream, int draw) -> Tensor");  // raw words, for tests
  m.def(  // rows as the encoder sees them
      "_scale_rows(Tensor x, Tensor? rows, Tensor mean, Tensor scale, Tensor(a!) out) -> ()");
  m.def(
      "_sgd_decode(Tensor codes, int rows, int cols, int bits, str layout, Tensor grid, Tensor "
      "table, "
      "Tensor row_index, int draw) -> Tensor");  // rows of a store as scaled values
  m.def(
      "_sgd_epoch(Tensor codes, int rows, int cols, int bits, str layout, Tensor grid, Tensor "
      "table, Tensor? y, "
      "Tensor? weight, Tensor? z0, Tensor(a!) x, Tensor(b!) intercept, Tensor? x0, Tensor? "
      "constant, Tensor? shrink, "
      "Tensor(c!)? average, Tensor order, Tensor gamma, int batch, str loss, float l1, float l2, "
      "bool variance_reduced, bool fit_intercept, int model_bits, int residual_bits, int "
      "gradient_bits, Tensor key, "
      "int first_step, int threads) -> Tensor");  // mini-batch SGD over codes
  m.def(
      "_svrg_epoch(Tensor x, Tensor phi, Tensor? weight, str loss, Tensor alpha_g, float alpha, "
      "float l2, float dx, float unit, int steps, int batch, Tensor(a!) z, Tensor(b!)? "
      "z_intercept, "
      "Tensor key, int stream=0) -> ()");  // the same in float32
  m.def("_unpack_codes(Tensor packed, int rows, int cols, int bits, str layout) -> Tensor");
  m.def(  // packed codes to float32
      "dequantize(Tensor codes, Tensor? scale, Tensor? levels, int[] size, int bits, str scheme, "
      "int? dim, int? bucket_size) -> Tensor");
  m.def(  // one of the draws of quantize_draws
      "dequantize_draws(Tensor codes, Tensor levels, int[] size, int draws, str form, int? dim, "
      "int draw, Tensor? key, int stream=0) -> Tensor");
  m.def(  // rounds onto the grid, straight-through gradient
      "fake_quantize(Tensor x, Tensor? scale, Tensor? levels, int bits, str scheme, int? dim, "
      "int? bucket_size, str rounding, Tensor? key, int stream=0) -> Tensor");
  m.def("fold_in(Tensor key, int data) -> Tensor");  // child key
  m.def("fold_in.Tensor(Tensor key, Tensor data) -> Tensor");
  m.def(  // the lattice offsets move into the centre
      "foreach_halp_commit_(Tensor(a!)[] params, Tensor(b!)[] z, Tensor(c!)[] center, Tensor[] "
      "delta) -> ()");
  m.def(  // weights to the nearest lattice points
      "foreach_halp_encode_(Tensor(a!)[] params, Tensor(b!)[] z, Tensor[] delta, int bits) -> ()");
  m.def(  // weights from centre and lattice offsets
      "foreach_halp_materialize_(Tensor(a!)[] params, Tensor[] z, Tensor[] center, Tensor[] delta) "
      "-> ()");
  m.def(  // a step of HALP, bit-centred SGD, LP-SVRG or LP-SGD
      "foreach_halp_step_(Tensor(a!)[] params, Tensor(b!)[] z, Tensor[] center, Tensor[] delta, "
      "Tensor[] grad, Tensor[] grad_center, Tensor[] full_grad, Tensor(c!)[] buf, Tensor(d!)[] "
      "stats, float lr, float weight_decay, float coef, float momentum, float dampening, int bits, "
      "int flags, Tensor key, int[] streams) -> ()");
  m.def(  // its rate on the device
      "foreach_halp_step_.lr_tensor(Tensor(a!)[] params, Tensor(b!)[] z, Tensor[] center, Tensor[] "
      "delta, Tensor[] grad, Tensor[] grad_center, Tensor[] full_grad, Tensor(c!)[] buf, "
      "Tensor(d!)[] stats, Tensor lr, float weight_decay, float coef, float momentum, float "
      "dampening, int bits, int flags, Tensor key, int[] streams) -> ()");
  m.def(  // a step of SVRG
      "foreach_svrg_step_(Tensor(a!)[] params, Tensor(b!)[] z, Tensor[] center, Tensor[] grad, "
      "Tensor[] grad_center, Tensor[] full_grad, Tensor(c!)[] buf, Tensor(d!)[] stats, float lr, "
      "float weight_decay, float coef, float momentum, float dampening, int flags) -> ()");
  m.def(
      "foreach_svrg_step_.lr_tensor(Tensor(a!)[] params, Tensor(b!)[] z, Tensor[] center, Tensor[] "
      "grad, Tensor[] grad_center, Tensor[] full_grad, Tensor(c!)[] buf, Tensor(d!)[] stats, "
      "Tensor lr, float weight_decay, float coef, float momentum, float dampening, int flags) -> "
      "()");
  m.def(  // levels of least variance or squared error
      "optimal_levels(Tensor x, Tensor? weight, Tensor? candidates, int levels, int? dim, int? "
      "bucket_size, str objective, str method, float rtol, str level_dtype) -> "
      "(Tensor, Tensor, Tensor, Tensor, Tensor)");
  m.def("pack_bits(Tensor codes, int bits) -> Tensor");  // one code a byte to a bit stream
  m.def(                                                 // spacings that cover the values
      "quantization_scale(Tensor x, int bits, str scheme, int? dim, int? bucket_size) -> Tensor");
  m.def(  // exact, float64
      "quantization_variance(Tensor x, Tensor? scale, Tensor? levels, int bits, str scheme, "
      "int? dim, int? bucket_size) -> Tensor");
  m.def(  // values to packed codes
      "quantize(Tensor x, Tensor? scale, Tensor? levels, int bits, str scheme, int? dim, "
      "int? bucket_size, str rounding, Tensor? key, int stream=0) -> Tensor");
  m.def(  // several independent roundings of each value in one pass
      "quantize_draws(Tensor x, Tensor levels, int draws, str form, int? dim, Tensor key, "
      "int stream=0) -> Tensor");
  m.def(  // variance, squared bias and clamped values of rounding to given levels
      "rounding_error(Tensor x, Tensor levels, Tensor? weight, int? dim, int? bucket_size, str "
      "rounding) -> (Tensor, Tensor, Tensor)");
  m.def("split(Tensor key, int n) -> Tensor");                     // n child keys, one a row
  m.def("unpack_bits(Tensor packed, int n, int bits) -> Tensor");  // the reverse of pack_bits
}
