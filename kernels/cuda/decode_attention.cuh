// What the kernels of a decode step's attention share: where queries and parts are, and how the splits of a row become its output.
//
// A block computes one split of 512 keys for the heads of a group, the rows of one tensor-core tile, and all or some of their
// columns. Where a sequence has more than one split, parts go to memory, and the block that finds, by a counter, that it is the
// last one folds them in ascending order (attention.cuh). Which one that is changes no bits.
#pragma once
#include "attention.cuh"

namespace attention_decode {
using namespace attention;

// part_out: (sequence, head, split, D) · part_sums: (sequence, head, split, 2) maximum and sum · counters: (sequence, kv_head, 4),
// zero before and behind a launch · positions: (sequence) of the row, whose keys are 0 to it; below 0: the slot is idle, and its
// rows stay as they are · q: rows of q_ld, heads first · out: rows of out_ld · most: keys that the page table and the splits have
// room for; rows of a sequence with more become NaN · scale: log2(e) / sqrt(D).
struct Arguments {
  const bf16_t *q, *keys, *values;
  const int *pages, *positions;
  float *part_out, *part_sums;
  u32* counters;
  bf16_t* out;
  int heads, kv_heads, pages_ld, q_ld, out_ld, most;
  float scale;
};

// What a block computes. grid: (splits * parts of the columns, kv_heads, sequences).
struct Task {
  const int* pages;  // of the split
  int group, kv_head, sequence;
  int split, splits;  // of the grid
  int count;          // keys of the split; below 1: nothing to do
  int needed;         // splits with keys
};

template <int D>
NS_DEV Task find(const Arguments& in, int parts) {
  Task t;
  t.group = in.heads / in.kv_heads;
  t.kv_head = blockIdx.y;
  t.sequence = blockIdx.z;
  t.split = blockIdx.x / parts;
  t.splits = gridDim.x / parts;
  const int length = in.positions[t.sequence] + 1;
  t.pages = in.pages + (long)t.sequence * in.pages_ld + t.split * NS_KV_SPLIT_PAGES;
  t.count = length - t.split * NS_KV_SPLIT < NS_KV_SPLIT ? length - t.split * NS_KV_SPLIT : NS_KV_SPLIT;
  t.needed = (length + NS_KV_SPLIT - 1) / NS_KV_SPLIT;
  if (length > in.most) {
    t.count = 0;
    bf16_t* const to = in.out + (long)t.sequence * in.out_ld + t.kv_head * t.group * D;
    for (int i = threadIdx.x; blockIdx.x == 0 && i < t.group * D; i += blockDim.x) to[i] = 0x7fff;
  }
  return t;
}

template <int D>
NS_DEV void load_queries(const Arguments& in, const Task& t, u32 to, int threads) {
  for (int c = threadIdx.x; c < 16 * D / 8; c += threads) {
    const int row = c / (D / 8), chunk = c % (D / 8), head = row < t.group ? row : t.group - 1;
    ns_cp16(to + tile_at<D>(row, chunk), in.q + (long)t.sequence * in.q_ld + (t.kv_head * t.group + head) * D + chunk * 8);
  }
}

// A lane's share of what a split's block has computed: from `column`, N chunks of eight columns of its two rows.
template <int D, int N>
NS_DEV void put(const Arguments& in, const Task& t, const float (&out)[N][4], const float (&max)[2], const float (&sum)[2],
                int column, bool sums) {
  const int lane = threadIdx.x & 31;
#pragma unroll
  for (int h = 0; h < 2; h++) {
    const int row = (lane >> 2) + 8 * h, head = t.kv_head * t.group + row;
    if (row >= t.group) continue;
    if (t.needed == 1) {
      float total_max = minus_infinity(), total_sum = 0.0f;
      const Fold fold = fold_split(total_max, total_sum, max[h], sum[h]);
      const float inverse = ns_rcp(total_sum);
      bf16_t* const to = in.out + (long)t.sequence * in.out_ld + head * D + column + (lane & 3) * 2;
#pragma unroll
      for (int n = 0; n < N; n++)
        *(u32*)(to + n * 8) =
            ns_pack(finished(out[n][2 * h] * fold.now, inverse), finished(out[n][2 * h + 1] * fold.now, inverse));
      continue;
    }
    const long at = ((long)t.sequence * in.heads + head) * t.splits + t.split;
    float* const to = in.part_out + at * D + column + (lane & 3) * 2;
#pragma unroll
    for (int n = 0; n < N; n++) {
      to[n * 8] = out[n][2 * h];
      to[n * 8 + 1] = out[n][2 * h + 1];
    }
    if (sums && (lane & 3) == 0) {
      in.part_sums[at * 2] = max[h];
      in.part_sums[at * 2 + 1] = sum[h];
    }
  }
}

// By all threads of a block, after put(): of all blocks with these columns of a sequence's group, the last one folds them.
template <int D, int COLUMNS>
NS_DEV void fold(const Arguments& in, const Task& t, int part, u32* shared) {
  if (t.needed == 1) return;
  u32* const counter = in.counters + ((long)t.sequence * in.kv_heads + t.kv_head) * 4 + part;
  ns_fence();
  __syncthreads();
  if (threadIdx.x == 0) *shared = ns_add(counter, 1);
  __syncthreads();
  if (*shared != (u32)t.needed - 1 - NS_PLANTED(213)) return;
  ns_fence();
  for (int i = threadIdx.x; i < t.group * COLUMNS; i += blockDim.x) {
    const int head = t.kv_head * t.group + i / COLUMNS, column = part * COLUMNS + i % COLUMNS;
    const long first = ((long)t.sequence * in.heads + head) * t.splits;
    float total = 0.0f, sum = 0.0f, max = minus_infinity();
    for (int split = 0; split < t.needed; split++) {
      const float* of = in.part_sums + (first + split) * 2;
      const Fold fold = fold_split(max, sum, of[0], of[1]);
      total = ns_fma(in.part_out[(first + split) * D + column], fold.now, total * fold.before);
    }
    in.out[(long)t.sequence * in.out_ld + head * D + column] = ns_f2bf(finished(total, ns_rcp(sum)));
  }
  if (threadIdx.x == 0) *counter = 0;
}

}  // namespace attention_decode

#define NS_DECODE_ATTENTION(NAME, FORWARD, D, THREADS)                                                                        \
  NS_KERNEL void __launch_bounds__(THREADS) NAME(                                                                             \
      const bf16_t* q, const bf16_t* keys, const bf16_t* values,                          \
      const int* pages, const int* positions, float* part_out, float* part_sums, u32* counters,       \
      bf16_t* out, int heads, int kv_heads, int pages_ld, int q_ld, int out_ld, int most, float scale) {                      \
    ns_grid_next();                                                                                                           \
    if (!NS_PLANTED(216)) ns_grid_wait();                                                                                     \
    FORWARD<D>(attention_decode::Arguments{q, keys, values, pages, positions, part_out, part_sums, counters, out, heads,      \
                                           kv_heads, pages_ld, q_ld, out_ld, most, scale});                                   \
  }                                                                                                                           \
  NS_REGISTER(NAME);
