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

// Reads a batch of pairs before it writes them: `add` may be `out`, so a compiler keeps their order, and would wait for memory
// at every pair.
template <int MT, int NT>
NS_DEV void finish_onto(float (&sums)[MT][NT][4], float* out, const float* add, int row, int column, int rows,
                        int columns) {
  // A batch is a part of a tile.
  constexpr int BATCH = NT % 8 == 0 ? 8 : NT % 4 == 0 ? 4 : NT % 2 == 0 ? 2 : 1;
  row += (threadIdx.x & 31) >> 2;
  column += (threadIdx.x & 3) * 2;
#pragma unroll
  for (int i = 0; i < 2 * MT; i++)
#pragma unroll
    for (int first = 0; first < NT; first += BATCH) {
      const int at = (row + i * 8) * columns + column + first * 8;
      u32x2 before[BATCH];
#pragma unroll
      for (int j = 0; j < BATCH; j++)
        if (row + i * 8 < rows && column + (first + j) * 8 < columns) before[j] = *(const u32x2*)(add + at + j * 8);
#pragma unroll
      for (int j = 0; j < BATCH; j++) {
        const float(&own)[4] = sums[i / 2][first + j];
        const float low = ns_u2f(before[j].x) + own[i % 2 * 2], high = ns_u2f(before[j].y) + own[i % 2 * 2 + 1];
        if (row + i * 8 < rows && column + (first + j) * 8 < columns)
          *(u32x2*)(out + at + j * 8) = u32x2{ns_f2u(low), ns_f2u(high)};
      }
    }
}

template <Kind KIND, int MT, int NT>
NS_DEV void finish(float (&sums)[MT][NT][4], void* out, const float* add, int row, int column, int rows, int columns) {
  if (KIND == ADD) return finish_onto(sums, (float*)out, add, row, column, rows, columns);
  tile::each_pair(sums, row, column, [&](int r, int c, float& first, float& second) {
    if (r >= rows || c >= columns) return;
    const int at = r * columns + c;
    if (KIND == BF16)
      *(u32*)((bf16_t*)out + at) = ns_pack(first, second);
    else
      *(u32x2*)((float*)out + at) = u32x2{ns_f2u(first), ns_f2u(second)};
  });
}

}  // namespace store
