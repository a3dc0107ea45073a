// Low-rank adapters beside a product: who has which, and their part of the sums.
//
// y += u·Bᵀ with u = bf16(s·(x·Aᵀ)) is R/16 further steps on the accumulator of the base product (contract C2), for the rows of
// each segment with the adapter in its slot. Steps of other segments are skipped, or add products with zeros, which is exact;
// so a row's bits do not depend on its neighbours' adapters. Fragments come straight from global memory: u and B are small.
// Start at `Lora`; lora.cu makes u.
#pragma once
#include "device.cuh"

namespace adapter {

// One adapter of one projection (outputs O, inputs I) in bf16, its rank R filled up with zeros to a multiple of 16. Each matrix
// in both orientations, because each product wants its terms side by side.
struct Entry {
  const bf16_t* a;    // (R, I)
  const bf16_t* b;    // (O, R)
  const bf16_t* a_t;  // (I, R)
  const bf16_t* b_t;  // (R, O)
  int rank;
  float scale;
};

// Rows of a call that have the same adapter: the one in `slot`, or none when that is negative.
struct Segment {
  int first, count, slot, unused;
};

// One projection of a (fused) linear map: its columns [first, end) of the wide matrix, its place in the table, its columns of u
// from `u` on.
struct Part {
  int first, end, entry, u;
};

// What a kernel is told of adapters. `table[slot * stride + entry]`; segments ascending and disjoint; u: (rows, ldu).
struct Lora {
  const Entry* table;
  const Segment* segments;
  bf16_t* u;
  int segment_count, stride, ldu, part_count;
  Part parts[3];
};

// The first segment that ends after `row`; a whole warp looks, 32 at a time, because each look waits for memory.
NS_DEV int first_segment(const Lora& lora, int row) {
  for (int from = 0; from < lora.segment_count; from += 32) {
    const int s = from + (threadIdx.x & 31);
    const u32 after = ns_ballot(s < lora.segment_count && lora.segments[s].first + lora.segments[s].count > row);
    if (after != 0) return from + ns_lowest(after);
  }
  return lora.segment_count;
}

NS_DEV u32 pair_at(const bf16_t* p) { return *(const u32*)p; }

// Adds the adapters' part to a warp's sums, 16·MT rows from `row` and 8·NT columns from `column` on. FORWARD: wide = y, u·Bᵀ;
// else wide = dx, du·A.
template <bool FORWARD, int MT, int NT>
NS_DEV void add(float (&sums)[MT][NT][4], const Lora& lora, int row, int column) {
  const int lane = threadIdx.x & 31, g = lane >> 2, t2 = (lane & 3) * 2;
  for (int s = first_segment(lora, row); s < lora.segment_count; s++) {
    const Segment segment = lora.segments[s];
    if (segment.first >= row + 16 * MT) break;
    if (segment.slot < 0) continue;
    const int end = segment.first + segment.count;
    for (int p = 0; p < lora.part_count; p++) {
      const Part part = lora.parts[p];
      if (part.end <= column || part.first >= column + 8 * NT) continue;
      const Entry entry = lora.table[segment.slot * lora.stride + part.entry];
      const bf16_t* up = FORWARD ? entry.b : entry.a_t;
      for (int r = 0; r < entry.rank; r += 16) {
        u32 a[MT][4];
#pragma unroll
        for (int i = 0; i < MT; i++)
#pragma unroll
          for (int q = 0; q < 4; q++) {
            const int at = row + i * 16 + (q & 1) * 8 + g;
            const bool inside = at >= segment.first && at < end + NS_PLANTED(108);
            const bf16_t* u = lora.u + (long long)at * lora.ldu + part.u + r + (q >> 1) * 8 + t2;
            a[i][q] = inside ? pair_at(u) : 0;
          }
        // One running offset: 8·NT of them would not fit into the registers.
        int at = (column + g - part.first) * entry.rank + r + t2;
#pragma unroll
        for (int j = 0; j < NT; j++, at += 8 * entry.rank) {
          // Parts begin and end at multiples of 16: eight columns are inside or outside together.
          const int c = column + j * 8;
          if (c < part.first || c >= part.end) continue;
          const u32 b0 = pair_at(up + at), b1 = pair_at(up + at + 8);
#pragma unroll
          for (int i = 0; i < MT; i++) ns_mma(sums[i][j], a[i], b0, b1);
        }
      }
    }
  }
}

}  // namespace adapter
