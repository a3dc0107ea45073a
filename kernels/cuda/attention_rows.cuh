// What the kernels for many rows share (attention.cu, attention_wgmma.cu): which rows a block computes, what a warp keeps of its
// 16 rows, what becomes of the scores of one page, and the end. The order of sums is drawn in attention.cuh.
#pragma once
#include "attention.cuh"

namespace attention_rows {
using namespace attention;

enum { ROWS = 128 };  // of a block: (position, head of the group) flattened, position major

// tiles: (block of the grid: 2) sequence and its first row among rows * group · sequences: (sequence: 4) first row in q and out,
// rows, position of the first row, row of the page table · q: rows of q_ld, heads first · out: rows of out_ld ·
// lse: (row, head), log2 of the sum of 2^(score * scale), or null · scale: log2(e) / sqrt(D) · grid: (tiles, kv_heads).
struct Arguments {
  const bf16_t *q, *keys, *values;
  const int *pages, *tiles, *sequences;
  bf16_t* out;
  float* lse;
  int heads, kv_heads, pages_ld, q_ld, out_ld;
  float scale;
};

// The rows of one block.
struct Tile {
  const int* pages;  // of the sequence
  int group, kv_head;
  int first, rows;  // first flattened row of the block; flattened rows of the sequence
  int row0, start;  // the sequence's first row in q and out, and its position
  int length;       // keys that the block's last row sees
  int blocks;       // pages with them
};

NS_DEV Tile find(const Arguments& in) {
  const int* sequence = in.sequences + 4 * in.tiles[2 * blockIdx.x];
  Tile t;
  t.group = in.heads / in.kv_heads;
  t.kv_head = blockIdx.y;
  t.first = in.tiles[2 * blockIdx.x + 1];
  t.row0 = sequence[0];
  t.rows = sequence[1] * t.group;
  t.start = sequence[2];
  t.pages = in.pages + (long)sequence[3] * in.pages_ld;
  const int end = t.first + ROWS < t.rows ? t.first + ROWS : t.rows;
  t.length = t.start + (end - 1) / t.group + 1;
  t.blocks = (t.length + NS_KV_PAGE - 1) / NS_KV_PAGE;
  return t;
}

// A flattened row's place in a matrix of rows of `ld` with heads of D side by side; rows behind the last one are the last one.
template <int D>
NS_DEV long place(const Tile& t, int row, int ld) {
  const int r = row < t.rows ? row : t.rows - 1;
  return (long)(t.row0 + r / t.group) * ld + (t.kv_head * t.group + r % t.group) * D;
}

// What a lane needs to know of its warp's 16 rows: those of lane / 4, and 8 below.
struct Mine {
  int position[2];  // of the lane's two; a row behind the last one sees nothing that others do not
  int reach;        // the last position of the warp's rows, or -1
};

NS_DEV Mine mine(const Tile& t, int first) {
  const int lane = threadIdx.x & 31, last = first + 15 < t.rows ? first + 15 : t.rows - 1;
  Mine m = {{}, first < t.rows ? t.start + last / t.group : -1};
#pragma unroll
  for (int h = 0; h < 2; h++) m.position[h] = t.start + (first + (lane >> 2) + 8 * h) / t.group;
  return m;
}

// A warp's accumulators over one split, and, but for the outputs, over all splits before it.
template <int D>
struct Sums {
  float out[D / 8][4], sum[1][4], max[2];
  float total_sum[2], total_max[2];
};

// The outputs over all splits before: in registers, or in shared memory, where they are touched once in 512 keys.
template <int D>
struct InRegisters {
  float at[D / 8][4];
};
struct InShared {
  float* at;  // the thread's first, then every 256th
};
template <int D>
NS_DEV float& total_at(InRegisters<D>& total, int n, int i) { return total.at[n][i]; }
NS_DEV float& total_at(InShared& total, int n, int i) { return total.at[(n * 4 + i) * 256]; }

template <int D>
NS_DEV void start_split(Sums<D>& a) {
  clear(a.out);
  clear(a.sum);
  a.max[0] = a.max[1] = minus_infinity();
}

template <int D, class Total>
NS_DEV void start(Sums<D>& a, Total& total) {
  start_split(a);
#pragma unroll
  for (int n = 0; n < D / 8; n++)
#pragma unroll
    for (int i = 0; i < 4; i++) total_at(total, n, i) = 0.0f;
#pragma unroll
  for (int h = 0; h < 2; h++) {
    a.total_sum[h] = 0.0f;
    a.total_max[h] = minus_infinity();
  }
}

// Whether a split ends with this page of `blocks`.
NS_DEV bool ends_split(int block, int blocks) {
  return (block + NS_PLANTED(204)) % NS_KV_SPLIT_PAGES == NS_KV_SPLIT_PAGES - 1 || block == blocks - 1;
}

template <int D, class Total>
NS_DEV void end_split(Sums<D>& a, Total& total) {
#pragma unroll
  for (int h = 0; h < 2; h++) {
    const Fold fold = fold_split(a.total_max[h], a.total_sum[h], a.max[h], a.sum[0][2 * h]);
#pragma unroll
    for (int n = 0; n < D / 8; n++)
#pragma unroll
      for (int i = 2 * h; i < 2 * h + 2; i++) {
        float& to = total_at(total, n, i);
        to = ns_fma(a.out[n][i], fold.now, to * fold.before);
      }
  }
  start_split(a);
}

// Scores of one page, of which the first key is at `key`, become weights. Before these are added, the accumulators are to be
// multiplied by `by`.
NS_DEV void weigh(float (&max)[2], float (&s)[8][4], const Mine& m, int key, float scale, float (&by)[2]) {
  const int column = (threadIdx.x & 3) * 2;
  const int seen[2] = {m.position[0] + 1 - key, m.position[1] + 1 + NS_PLANTED(203) - key};
  if (seen[0] < NS_KV_PAGE || seen[1] < NS_KV_PAGE) {
#pragma unroll
    for (int n = 0; n < 8; n++)
#pragma unroll
      for (int i = 0; i < 4; i++)
        if (n * 8 + column + (i & 1) >= seen[i >> 1]) s[n][i] = minus_infinity();
  }
  float offset[2];
#pragma unroll
  for (int h = 0; h < 2; h++) {
    float largest = fmaxf(s[0][2 * h], s[0][2 * h + 1]);
#pragma unroll
    for (int n = 1; n < 8; n++) largest = fmaxf(largest, fmaxf(s[n][2 * h], s[n][2 * h + 1]));
    by[h] = grow_max(max[h], row_max(largest), scale);
    offset[h] = -finite_max(max[h]);
  }
#pragma unroll
  for (int n = 0; n < 8; n++)
#pragma unroll
    for (int i = 0; i < 4; i++) s[n][i] = ns_exp2_low(ns_fma(s[n][i], scale, offset[i >> 1]));
}

// Weights as the left operand of four steps of 16 keys.
NS_DEV void round_weights(u32 (&p)[4][4], const float (&s)[8][4]) {
#pragma unroll
  for (int n = 0; n < 8; n++)
#pragma unroll
    for (int h = 0; h < 2; h++) p[n / 2][n % 2 * 2 + h] = ns_pack(s[n][2 * h], s[n][2 * h + 1]);
}

// Mostly no row of a warp has a new reference.
template <int D>
NS_DEV void rescale(Sums<D>& a, const float (&by)[2]) {
  if (NS_PLANTED(205) || ns_ballot(by[0] != 1.0f || by[1] != 1.0f) == 0) return;
#pragma unroll
  for (int i = 0; i < 4; i++) {
#pragma unroll
    for (int n = 0; n < D / 8; n++) a.out[n][i] *= by[i >> 1];
    a.sum[0][i] *= by[i >> 1];
  }
}

template <int D, class Total>
NS_DEV void store(const Arguments& in, const Tile& t, int first, const Sums<D>& a, Total& total) {
  const int lane = threadIdx.x & 31;
#pragma unroll
  for (int h = 0; h < 2; h++) {
    const int row = first + (lane >> 2) + 8 * h;
    if (row >= t.rows) continue;
    const float inverse = 1.0f / a.total_sum[h];
    bf16_t* to = in.out + place<D>(t, row, in.out_ld) + (lane & 3) * 2;
#pragma unroll
    for (int n = 0; n < D / 8; n++)
      *(u32*)(to + n * 8) = ns_pack(finished(total_at(total, n, 2 * h), inverse), finished(total_at(total, n, 2 * h + 1), inverse));
    if (in.lse && (lane & 3) == 0) in.lse[place<1>(t, row, in.heads)] = a.total_max[h] + ns_log2(a.total_sum[h]);
  }
}

}  // namespace attention_rows

#define NS_ATTENTION_ROWS(NAME, FORWARD, D, THREADS)                                                                         \
  NS_KERNEL void __launch_bounds__(THREADS, 1) NAME(                                                                         \
      const bf16_t* NS_RESTRICT q, const bf16_t* NS_RESTRICT keys, const bf16_t* NS_RESTRICT values,                         \
      const int* NS_RESTRICT pages, const int* NS_RESTRICT tiles, const int* NS_RESTRICT sequences, bf16_t* NS_RESTRICT out, \
      float* NS_RESTRICT lse, int heads, int kv_heads, int pages_ld, int q_ld, int out_ld, float scale) {                    \
    FORWARD<D>(attention_rows::Arguments{q, keys, values, pages, tiles, sequences, out, lse, heads, kv_heads, pages_ld,      \
                                         q_ld, out_ld, scale});                                                              \
  }                                                                                                                          \
  NS_REGISTER(NAME);
