// Multi-stream prefetch of the tile kernels.
#pragma once

#include "sgd_kernels.h"

// `units` more 32-byte units have been read; every 256 bytes two lines of the next stream are
// fetched. A macro: g++ 12 drops calls of a function that only prefetches.
#define TX_PREFETCH_DUE(ahead, h, due, units, offset)                                            \
  do {                                                                                           \
    for ((due) += (units); (due) >= 8; (due) -= 8, ++(h)) {                                      \
      const uint8_t* tx_p = (ahead).stream[(h) & ((1 << (ahead).log2_streams) - 1)] + (offset) + \
                            ((h) >> (ahead).log2_streams) * 128;                                 \
      __builtin_prefetch(tx_p, 0, 2);                                                            \
      __builtin_prefetch(tx_p + 64, 0, 2);                                                       \
    }                                                                                            \
  } while (false)
