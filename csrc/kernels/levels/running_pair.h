// Two double-double sums side by side, in the two lanes of a register.
#pragma once

#include "dd.h"

namespace torchext::levels {

typedef double Two __attribute__((vector_size(16)));

/// RunningSum twice: the same bits in half the instructions.
class RunningPair {
 public:
  void add(DD a, DD b) {
    const Two high{a.h, b.h}, low{a.l, b.l}, sum = high_ + high, t = sum - high_;
    low_ += ((high_ - (sum - t)) + (high - t)) + low;
    high_ = sum;
    if (++loose_ == 8) {
      settle(&high_, &low_);
      loose_ = 0;
    }
  }
  void get(DD* a, DD* b) const {
    Two high = high_, low = low_;
    settle(&high, &low);
    *a = {high[0], low[0]};
    *b = {high[1], low[1]};
  }

 private:
  static void settle(Two* high, Two* low) {
    const Two sum = *high + *low, t = sum - *high;
    *low = (*high - (sum - t)) + (*low - t);
    *high = sum;
  }

  Two high_{}, low_{};
  int loose_ = 0;
};

}  // namespace torchext::levels
