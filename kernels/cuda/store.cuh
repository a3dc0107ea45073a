// What becomes of a product's sums: the one rounding, or the one addition, at their store.
//
// Knows nothing of tiles. Start at `Kind`.
#pragma once
#include "device.cuh"
#include "tile.cuh"

namespace store {

enum Kind {
  BF16,  // out (bf16) = sums, rounded once
  F32,   // out = sums
  ADD,  // out = add + sums, one addition at the end (the residual stream, a gradient of several parts); `add` may be `out`
};

// Every chain of sums begins at zero.
template <int MT, int NT> NS_DEV void clear(float (&sums)[MT][NT][4]) {
  tile::each_pair(sums, 0, 0, [](int, int, float& first, float& second) { first = second = 0.0f; });
}

template <Kind KIND, int MT, int NT>
NS_DEV void finish(float (&sums)[MT][NT][4], void* out, const float* add, int row, int column, int rows, int columns) {
  tile::each_pair(sums, row, column, [&](int r, int c, float& first, float& second) {
    if (r >= rows || c >= columns) return;
    const int at = r * columns + c;
    if (KIND == BF16) {
      *(u32*)((bf16_t*)out + at) = ns_pack(first, second);
      return;
    }
    *(u32x2*)((float*)out + at) = KIND == ADD ? u32x2{ns_f2u(add[at] + first), ns_f2u(add[at + 1] + second)}
                                              : u32x2{ns_f2u(first), ns_f2u(second)};
  });
}

}  // namespace store
