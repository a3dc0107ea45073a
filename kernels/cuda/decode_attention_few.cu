// The rows of decode_attention.cu where there are few of them, on Hopper (sm_90a only), with the same bits: what counts is not how
// much is read at a time but how soon all of it is there.
//
// A block for each (split of 512 keys and part of the head's columns, key head, sequence). It asks for all keys of the split, and for
// its columns of all values, at once: keys come as often as there are parts, from the second-level cache, so that more
// multiprocessors read values and add them. Each of 16 warps scores 32 keys; all weights are exchanged once; then a warp adds the
// values of eight columns, keys ascending. Start at split().
#include "device.cuh"
#include "decode_attention.cuh"

#if defined(__CUDA_ARCH_FEAT_SM90_ALL) || defined(NS_EMU)

namespace attention_few {
using namespace attention_decode;

enum { THREADS = 512, WARPS = THREADS / 32, STEPS = NS_KV_SPLIT / 16 };

// Shared memory, in bytes: queries (16 rows), keys, a part of values, weights by (step of 16 keys, lane), maxima, sums.
template <int D>
NS_DEV u32 keys_at(u32 base) { return base + 16 * D * 2; }
template <int D>
NS_DEV u32 values_at(u32 base) { return keys_at<D>(base) + NS_KV_SPLIT * D * 2; }
template <int D, int COLUMNS>
NS_DEV unsigned char* weights_at(unsigned char* memory) { return memory + (16 + NS_KV_SPLIT) * D * 2 + NS_KV_SPLIT * COLUMNS * 2; }

// Bytes from the start of values to chunk `chunk` of `row`: chunks of the rows of 128 bytes lie in different groups of banks.
template <int COLUMNS>
NS_DEV u32 value_at(int row, int chunk) {
  const int chunks = COLUMNS / 8;
  return (u32)((row * chunks + (chunk ^ (row * chunks / 8 & (chunks - 1)))) << 4);
}

// All of the split that the sequence has, in whole blocks, of which rows behind the last key repeat it.
template <int D, int COLUMNS>
NS_DEV void load(const Arguments& in, const Task& t, u32 base, int part) {
  const int rows = (t.count + BLOCK - 1) / BLOCK * BLOCK, last = t.count - 1;
#pragma unroll 4
  for (int c = threadIdx.x; c < rows * D / 8; c += THREADS) {
    const int row = c / (D / 8), chunk = c % (D / 8);
    ns_cp16(keys_at<D>(base) + tile_at<D>(row, chunk),
            in.keys + ns_kv_row(t.pages, row < last ? row : last, in.kv_heads, t.kv_head, D) + chunk * 8);
  }
  ns_cp_commit();
#pragma unroll 4
  for (int c = threadIdx.x; c < rows * COLUMNS / 8; c += THREADS) {
    const int row = c / (COLUMNS / 8), chunk = c % (COLUMNS / 8);
    ns_cp16(values_at<D>(base) + value_at<COLUMNS>(row, chunk),
            in.values + ns_kv_row(t.pages, row < last ? row : last, in.kv_heads, t.kv_head, D) + part * COLUMNS + chunk * 8);
  }
  ns_cp_commit();
}

// A warp's 32 keys: scores, and the largest of each row for everybody.
template <int D>
NS_DEV void score(float (&s)[4][4], const Task& t, u32 base, float* maxima) {
  const int warp = threadIdx.x >> 5, lane = threadIdx.x & 31;
  dot<D>(s, base, 0, keys_at<D>(base), warp * 32);
  const int seen = t.count - warp * 32 - (lane & 3) * 2;
#pragma unroll
  for (int n = 0; n < 4; n++)
#pragma unroll
    for (int i = 0; i < 4; i++)
      if (n * 8 + (i & 1) >= seen) s[n][i] = minus_infinity();
#pragma unroll
  for (int h = 0; h < 2; h++) {
    float mine = fmaxf(s[0][2 * h], s[0][2 * h + 1]);
#pragma unroll
    for (int n = 1; n < 4; n++) mine = fmaxf(mine, fmaxf(s[n][2 * h], s[n][2 * h + 1]));
    mine = row_max(mine);
    if ((lane & 3) == 0) maxima[warp * 16 + (lane >> 2) + 8 * h] = mine;
  }
}

template <int D, int COLUMNS>
NS_DEV void split(const Arguments& in) {
  NS_DYN_SMEM(memory);
  NS_SHARED(u32, arrived, [1]);
  const u32 base = ns_smem(memory);
  u32x4* const weights = (u32x4*)weights_at<D, COLUMNS>(memory);  // [32][32]
  float* const maxima = (float*)(weights + STEPS * 32);           // [16][16]
  float* const sums = maxima + WARPS * 16;                        // [16][32][2]
  const int warp = threadIdx.x >> 5, lane = threadIdx.x & 31, part = blockIdx.x % (D / COLUMNS);
  const Task t = find<D>(in, D / COLUMNS);
  if (t.count < 1) return;
  load_queries<D>(in, t, base, THREADS);
  load<D, COLUMNS>(in, t, base, part);
  const int blocks = (t.count + BLOCK - 1) / BLOCK;
  const bool scores = warp < blocks * 4;
  float s[4][4];
  ns_cp_wait<1 + NS_PLANTED(214)>();
  __syncthreads();
  if (scores) score<D>(s, t, base, maxima);
  __syncthreads();

  // References from block to block, as if one came after the other; the warp's own weights are those of its block.
  float max[2] = {minus_infinity(), minus_infinity()}, by[SPLIT_BLOCKS][2];
#pragma unroll
  for (int block = 0; block < SPLIT_BLOCKS; block++) {
    if (block >= blocks) break;
#pragma unroll
    for (int h = 0; h < 2; h++) {
      const float* of_row = maxima + block * 64 + (lane >> 2) + 8 * h;
      by[block][h] = grow_max(max[h], fmaxf(fmaxf(of_row[0], of_row[16]), fmaxf(of_row[32], of_row[48])), in.scale);
      const float offset = -finite_max(max[h]);
      if (warp / 4 != block) continue;
#pragma unroll
      for (int n = 0; n < 4; n++)
#pragma unroll
        for (int i = 2 * h; i < 2 * h + 2; i++) s[n][i] = ns_ex2(ns_fma(s[n][i], in.scale, offset));
      sums[(warp * 32 + lane) * 2 + h] = part_sum(s, 0, h);
    }
  }
#pragma unroll
  for (int j = 0; scores && j < 2; j++)
    weights[(warp * 2 + j) * 32 + lane] =
        u32x4{ns_pack(s[2 * j][0], s[2 * j][1]), ns_pack(s[2 * j][2], s[2 * j][3]),
              ns_pack(s[2 * j + 1][0], s[2 * j + 1][1]), ns_pack(s[2 * j + 1][2], s[2 * j + 1][3])};
  ns_cp_wait<0>();
  if (!NS_PLANTED(215)) __syncthreads();
  if (warp < COLUMNS / 8) {
    float out[1][4], sum[2] = {0.0f, 0.0f};
    clear(out);
#pragma unroll
    for (int block = 0; block < SPLIT_BLOCKS; block++) {
      if (block >= blocks) break;
#pragma unroll
      for (int i = 0; i < 4; i++) out[0][i] *= by[block][i >> 1];
#pragma unroll
      for (int h = 0; h < 2; h++) {
        const float* of_lane = sums + (block * 128 + lane) * 2 + h;
        sum[h] = ns_fma(sum[h], by[block][h], block_sum(of_lane[0], of_lane[64], of_lane[128], of_lane[192]));
      }
#pragma unroll
      for (int step = block * 8; step < block * 8 + 8; step += 2) {
        const u32x4 w = weights[step * 32 + lane], v = weights[step * 32 + 32 + lane];
        const u32 p[2][4] = {{w.x, w.y, w.z, w.w}, {v.x, v.y, v.z, v.w}};
        u32 b0, b1, b2, b3;
        ns_ldsm4t(b0, b1, b2, b3, values_at<D>(base) + value_at<COLUMNS>(step * 16 + lane, warp));
        ns_mma(out[0], p[0], b0, b1);
        ns_mma(out[0], p[1], b2, b3);
      }
    }
    sum[0] = row_sum(sum[0]);
    sum[1] = row_sum(sum[1]);
    put<D>(in, t, out, max, sum, part * COLUMNS + warp * 8, warp == 0);
  }
  fold<D, COLUMNS>(in, t, part, arrived);
}

template <int D> NS_DEV void halves(const Arguments& in) { split<D, D / 2>(in); }
template <int D> NS_DEV void quarters(const Arguments& in) { split<D, D / 4>(in); }

}  // namespace attention_few

NS_DECODE_ATTENTION(attention_halves_d64, attention_few::halves, 64, 512)
NS_DECODE_ATTENTION(attention_halves_d128, attention_few::halves, 128, 512)
NS_DECODE_ATTENTION(attention_quarters_d64, attention_few::quarters, 64, 512)
NS_DECODE_ATTENTION(attention_quarters_d128, attention_few::quarters, 128, 512)
#endif
