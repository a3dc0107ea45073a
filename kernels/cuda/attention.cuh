// What the attention kernels share: tiles in shared memory, products of a tile with keys, and the order of sums.
//
// The order (contract C3), the same in every kernel that computes an output row:
//   - a score is D / 16 steps of the tensor core, elements of the head ascending, into one accumulator;
//   - within a split (512 keys at absolute positions) blocks of 128 keys ascend; each one rescales the accumulators by
//     2^(old reference - new one), then adds its eight steps of 16 keys, with weights rounded to bf16;
//   - the sum of weights is of those before rounding: a row's four lanes, each with the keys of two columns of eight,
//     have one sum each, to which blocks ascend (block_sum); at the end of a split they are added (row_sum);
//   - splits are folded in ascending order (Fold).
// A block that a row does not see adds exact zeros and multiplies by exact ones, so leaving it out changes nothing but the
// sign of a zero, which the last step sets (x + 0).
#pragma once
#include "exp2.cuh"
#include "kv.cuh"

namespace attention {

enum { BLOCK = 128, BLOCK_PAGES = BLOCK / NS_KV_PAGE, SPLIT_BLOCKS = NS_KV_SPLIT / BLOCK };

NS_DEV float minus_infinity() { return ns_u2f(0xff800000u); }

// Bytes from the start of a tile with rows of D bf16 to 16-byte chunk `chunk` of `row`. Eight rows' same chunk lies in eight
// different groups of banks, for ldmatrix.
template <int D>
NS_DEV u32 tile_at(int row, int chunk) {
  return (u32)(row * D * 2 + ((chunk ^ (row & 7)) << 4));
}

// Copies 64 rows of D from `from`; rows from `rows` on repeat the last one, so that all of the tile is finite.
template <int D, int THREADS>
NS_DEV void load_page(u32 to, const bf16_t* from, int rows) {
#pragma unroll
  for (int i = 0; i < NS_KV_PAGE * D / 8 / THREADS; i++) {
    const int c = threadIdx.x + i * THREADS, row = c / (D / 8), chunk = c % (D / 8);
    ns_cp16(to + tile_at<D>(row, NS_PLANTED(202) ? chunk ^ 1 : chunk), from + (long)(row < rows ? row : rows - 1) * D + chunk * 8);
  }
}

template <int N>
NS_DEV void clear(float (&acc)[N][4]) {
#pragma unroll
  for (int n = 0; n < N; n++)
#pragma unroll
    for (int i = 0; i < 4; i++) acc[n][i] = 0.0f;
}

// The left operand of the tensor core: 16 rows from `row`, elements 16 * k to 16 * k + 15.
template <int D>
NS_DEV void load_left(u32 (&a)[4], u32 tile, int row, int k) {
  const int lane = threadIdx.x & 31;
  ns_ldsm4(a[0], a[1], a[2], a[3], tile + tile_at<D>(row + (lane & 15), k * 2 + (lane >> 4)));
}

// s = left . right^T: 16 rows from `left_row` with the 8 * N rows from `right_row`. The left rows are read again for every use:
// keeping them would cost D / 4 registers. Nor are addresses of many steps kept where scores take up so many.
template <int D, int N>
NS_DEV void dot(float (&s)[N][4], u32 left, int left_row, u32 right, int right_row) {
  const int lane = threadIdx.x & 31;
  clear(s);
#pragma unroll (N > 8 ? 1 : D / 16)
  for (int k = 0; k < D / 16; k++) {
    u32 a[4];
    load_left<D>(a, left, left_row, k);
#pragma unroll
    for (int n = 0; n < N; n += 2) {
      u32 b0, b1, b2, b3;
      const int r = right_row + n * 8 + (lane & 7) + ((lane >> 4) << 3);
      ns_ldsm4(b0, b1, b2, b3, right + tile_at<D>(r, k * 2 + ((lane >> 3) & 1)));
      ns_mma(s[n], a, b0, b1);
      ns_mma(s[n + 1], a, b2, b3);
    }
  }
}

// acc += a . tile: one step of the 16 rows from `row`, N chunks of eight columns from chunk `first`.
template <int D, int N>
NS_DEV void add_16(float (&acc)[N][4], const u32 (&a)[4], u32 tile, int row, int first) {
  const int lane = threadIdx.x & 31;
#pragma unroll
  for (int n = 0; n < N; n += 2) {
    u32 b0, b1, b2, b3;
    ns_ldsm4t(b0, b1, b2, b3, tile + tile_at<D>(row + (lane & 15), first + n + (lane >> 4)));
    ns_mma(acc[n], a, b0, b1);
    ns_mma(acc[n + 1], a, b2, b3);
  }
}

// The larger of the four lanes that hold a row.
NS_DEV float row_max(float x) {
  x = fmaxf(x, ns_shfl_xor(x, 1));
  return fmaxf(x, ns_shfl_xor(x, 2));
}

// The sum of the four lanes that hold a row.
NS_DEV float row_sum(float x) {
  x += ns_shfl_xor(x, 1);
  return x + ns_shfl_xor(x, 2);
}

// A lane's weights of row h of 32 keys, and of the four such parts of a block.
template <int N>
NS_DEV float part_sum(const float (&s)[N][4], int first, int h) {
  const int a = 2 * h, b = 2 * h + 1;
  return ((s[first][a] + s[first][b]) + (s[first + 1][a] + s[first + 1][b])) +
         ((s[first + 2][a] + s[first + 2][b]) + (s[first + 3][a] + s[first + 3][b]));
}
NS_DEV float block_sum(float a, float b, float c, float d) { return (a + b) + (c + d); }

// A row that has seen no key has the largest score -inf; its weights are 2^-inf all the same.
NS_DEV float finite_max(float max) { return max == minus_infinity() ? 0.0f : max; }

// Takes a block's largest score into a row's reference of the split (in units of log2); gives what the row's accumulators are
// to be multiplied by. The reference is the largest score of the first block that the row sees, and only follows one that
// is larger by more than 8: weights up to 2^8 are as good as up to 1, and mostly the factor is exactly 1.
NS_DEV float grow_max(float& max, float largest, float scale) {
  const float scaled = largest * scale, next = scaled > max + 8.0f ? scaled : max;
  const float rescale = ns_ex2(max - finite_max(next));
  max = next;
  return rescale;
}

// What to fold the row's accumulators of a split into the total with: total = ns_fma(split, now, total * before). Starts from
// a maximum of -inf and zeros; a split of which the row has seen nothing leaves everything as it is.
struct Fold {
  float before, now;
};

NS_DEV Fold fold_split(float& max, float& sum, float split_max, float split_sum) {
  if (split_max == minus_infinity()) return Fold{1.0f, 0.0f};
  const float next = fmaxf(max, split_max);
  const Fold fold = {ns_ex2(max - next), ns_ex2(split_max - next)};
  max = next;
  sum = ns_fma(split_sum, fold.now, sum * fold.before);
  return fold;
}

// What is stored: `total` over the sum of weights; + 0 because a zero is +0 in every kernel.
NS_DEV float finished(float total, float inverse_sum) { return ns_fma(total, inverse_sum, 0.0f); }

}  // namespace attention
