// What the kernels for many rows share (attention.cu, attention_wgmma.cu): which rows a block computes, what a warp keeps of its
// 16 rows, what becomes of the scores of one block of keys, and the end. The order of sums is drawn in attention.cuh.
#pragma once
#include "attention.cuh"

namespace attention_rows {
using namespace attention;

enum { ROWS = 128 };  // of a block: (position, head of the group) flattened, position major

// tiles: (block of the grid: 2) sequence and its first row among rows * group · sequences: (sequence: 4) first row in q and out,
// rows, position of the first row, row of the page table · q: rows of q_ld, heads first · out: rows of out_ld ·
// lse: (row, head), log2 of the sum of 2^(score * scale), or null · scale: log2(e) / sqrt(D) · 
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
  int length;       // keys that the tile's last row sees
  int blocks;       // blocks of keys with them
  int written;      // keys that the sequence has
};

NS_DEV Tile find(const Arguments& in, int tile, int kv_head) {
  const int* sequence = in.sequences + 4 * in.tiles[2 * tile];
  Tile t;
  t.group = in.heads / in.kv_heads;
  t.kv_head = kv_head;
  t.first = in.tiles[2 * tile + 1];
  t.row0 = sequence[0];
  t.rows = sequence[1] * t.group;
  t.start = sequence[2];
  t.pages = in.pages + (long)sequence[3] * in.pages_ld;
  const int end = t.first + ROWS < t.rows ? t.first + ROWS : t.rows;
  t.length = t.start + (end - 1) / t.group + 1;
  t.blocks = (t.length + BLOCK - 1) / BLOCK;
  t.written = t.start + sequence[1];
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
  int position[2];  // of the lane's two; what a row behind the last one sees is of no interest
};

NS_DEV Mine mine(const Tile& t, int first) {
  const int lane = threadIdx.x & 31;
  Mine m;
#pragma unroll
  for (int h = 0; h < 2; h++) m.position[h] = t.start + (first + (lane >> 2) + 8 * h) / t.group;
  return m;
}

// A lane's sums over a split, and what splits before it were folded into, but for the outputs.
template <int D>
struct Sums {
  float out[D / 8][4], sum[2], max[2];
  float total_sum[2], total_max[2];
};

NS_DEV void start_split(float (&max)[2], float (&sum)[2]) {
#pragma unroll
  for (int h = 0; h < 2; h++) {
    max[h] = minus_infinity();
    sum[h] = 0.0f;
  }
}

template <int D>
NS_DEV void start(Sums<D>& a) {
  clear(a.out);
  start_split(a.max, a.sum);
  start_split(a.total_max, a.total_sum);
}

// Whether a split ends with this block of `blocks`.
NS_DEV bool ends_split(int block, int blocks) {
  return (block + NS_PLANTED(204)) % SPLIT_BLOCKS == SPLIT_BLOCKS - 1 || block == blocks - 1;
}

// Takes the scores of one block, of which the first key is at `key`, into the rows' references. Their weights are
// 2^(score * scale + offset); before weighted values are added, the outputs are to be multiplied by `by`.
NS_DEV void refer(float (&max)[2], float (&s)[16][4], const Mine& m, int key, float scale, float (&offset)[2], float (&by)[2]) {
  const int column = (threadIdx.x & 3) * 2 + key;
  const int seen[2] = {m.position[0] + 1 - column, m.position[1] + 1 + NS_PLANTED(203) - column};
  if (m.position[0] + 1 - key < BLOCK || m.position[1] + 1 - key < BLOCK) {
#pragma unroll
    for (int n = 0; n < 16; n++)
#pragma unroll
      for (int i = 0; i < 4; i++)
        if (n * 8 + (i & 1) >= seen[i >> 1]) s[n][i] = minus_infinity();
  }
  // Four chains at once: one is slow.
  float largest[4];
#pragma unroll
  for (int i = 0; i < 4; i++) largest[i] = fmaxf(s[0][i], s[1][i]);
#pragma unroll
  for (int n = 2; n < 16; n++)
#pragma unroll
    for (int i = 0; i < 4; i++) largest[i] = fmaxf(largest[i], s[n][i]);
  float of_row[2] = {fmaxf(largest[0], largest[1]), fmaxf(largest[2], largest[3])};
#pragma unroll
  for (int lanes = 1; lanes < 4; lanes *= 2) {
    const float other[2] = {ns_shfl_xor(of_row[0], lanes), ns_shfl_xor(of_row[1], lanes)};
    of_row[0] = fmaxf(of_row[0], other[0]);
    of_row[1] = fmaxf(of_row[1], other[1]);
  }
#pragma unroll
  for (int h = 0; h < 2; h++) {
    by[h] = grow_max(max[h], of_row[h], scale);
    offset[h] = -finite_max(max[h]);
  }
}

// Scores become weights.
NS_DEV void weigh(float (&s)[16][4], float scale, const float (&offset)[2]) {
#pragma unroll
  for (int n = 0; n < 16; n++)
#pragma unroll
    for (int i = 0; i < 4; i++) s[n][i] = ns_ex2(ns_fma(s[n][i], scale, offset[i >> 1]));
}

// Weights go into their sums.
NS_DEV void add_sums(float (&sum)[2], const float (&s)[16][4], const float (&by)[2]) {
#pragma unroll
  for (int h = 0; h < 2; h++)
    sum[h] = ns_fma(sum[h], by[h], block_sum(part_sum(s, 0, h), part_sum(s, 4, h), part_sum(s, 8, h), part_sum(s, 12, h)));
}

// Weights as the left operand of eight steps of 16 keys.
NS_DEV void round_weights(u32 (&p)[8][4], const float (&s)[16][4]) {
#pragma unroll
  for (int n = 0; n < 16; n++)
#pragma unroll
    for (int h = 0; h < 2; h++) p[n / 2][n % 2 * 2 + h] = ns_pack(s[n][2 * h], s[n][2 * h + 1]);
}

// Mostly no row of a warp has a new reference.
template <int D>
NS_DEV void rescale(Sums<D>& a, const float (&by)[2]) {
  if (NS_PLANTED(205) || ns_ballot(by[0] != 1.0f || by[1] != 1.0f) == 0) return;
#pragma unroll
  for (int n = 0; n < D / 8; n++)
#pragma unroll
    for (int i = 0; i < 4; i++) a.out[n][i] *= by[i >> 1];
}

// The outputs, from `total`.
template <int D>
NS_DEV void store(const Arguments& in, const Tile& t, int first, const Sums<D>& a, const float (&total)[D / 8][4]) {
  const int lane = threadIdx.x & 31;
#pragma unroll
  for (int h = 0; h < 2; h++) {
    const int row = first + (lane >> 2) + 8 * h;
    if (row >= t.rows) continue;
    const float inverse = ns_rcp(a.total_sum[h]);
    bf16_t* to = in.out + place<D>(t, row, in.out_ld) + (lane & 3) * 2;
#pragma unroll
    for (int n = 0; n < D / 8; n++)
      *(u32*)(to + n * 8) = ns_pack(finished(total[n][2 * h], inverse), finished(total[n][2 * h + 1], inverse));
    if (in.lse && (lane & 3) == 0) in.lse[place<1>(t, row, in.heads)] = a.total_max[h] + ns_log2(a.total_sum[h]);
  }
}

}  // namespace attention_rows
