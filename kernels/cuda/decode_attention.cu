// Attention of one query row for each sequence over its paged cache: the decode step. The bits are those of attention.cu.
//
// A block for each (split of 512 keys, key head, sequence). For each block of 128 keys the four warps score 32 each, agree on the
// rows' maxima, exchange weights, and then own a quarter of the columns of the output.
//
// Reading is all that counts here, and several blocks a multiprocessor hide what each of them waits for: keys come while the block
// before is weighed and added, values while scores are computed, so that three blocks with heads of 128 fit (and one on an
// architecture with 100 KiB). Groups of up to 16 heads. Few sequences are decode_attention_few.cu's. Start at split().
#include "device.cuh"
#include "decode_attention.cuh"

namespace attention_decode {

enum { WARPS = 4, THREADS = 32 * WARPS, STEPS = BLOCK / 16 };

// Shared memory, in bytes: queries (16 rows), a block of keys, one of values, weights by (step of 16 keys, lane), maxima, sums.
template <int D>
NS_DEV u32 keys_at(u32 base) { return base + 16 * D * 2; }
template <int D>
NS_DEV u32 values_at(u32 base) { return keys_at<D>(base) + BLOCK * D * 2; }
template <int D>
NS_DEV unsigned char* weights_at(unsigned char* memory) { return memory + (16 + 2 * BLOCK) * D * 2; }

// A block's pages, of which rows behind the last key repeat it, so that all is finite.
template <int D>
NS_DEV void load(const Arguments& in, const Task& t, u32 to, const bf16_t* from, int first) {
  if (first < t.count) {
#pragma unroll 4
    for (int c = threadIdx.x; c < BLOCK * D / 8; c += THREADS) {
      const int row = c / (D / 8), chunk = c % (D / 8), key = first + row < t.count ? first + row : t.count - 1;
      ns_cp16(to + tile_at<D>(row, NS_PLANTED(202) ? chunk ^ 1 : chunk),
              from + ns_kv_row(t.pages, key, in.kv_heads, t.kv_head, D) + chunk * 8);
    }
  }
  ns_cp_commit();
}

template <int D>
NS_DEV_MEMBER void split(const Arguments& in) {
  NS_DYN_SMEM(memory);
  NS_SHARED(u32, arrived, [1]);
  const u32 base = ns_smem(memory);
  u32x4* const weights = (u32x4*)weights_at<D>(memory);  // [8][32]
  float* const maxima = (float*)(weights + STEPS * 32);  // [4][16]
  float* const sums = maxima + WARPS * 16;               // [4][32][2]
  const int warp = threadIdx.x >> 5, lane = threadIdx.x & 31;
  const Task t = find<D>(in, 1);
  if (t.count < 1) return;
  load_queries<D>(in, t, base, THREADS);
  load<D>(in, t, keys_at<D>(base), in.keys, 0);
  load<D>(in, t, values_at<D>(base), in.values, 0);

  float out[D / 32][4], sum[2] = {0.0f, 0.0f}, max[2] = {minus_infinity(), minus_infinity()};
  clear(out);
  for (int key = 0; key < t.count; key += BLOCK) {
    ns_cp_wait<1 + NS_PLANTED(212)>();
    __syncthreads();
    float s[4][4];
    dot<D>(s, base, 0, keys_at<D>(base), warp * 32);
    const int seen = t.count - key - warp * 32 - (lane & 3) * 2;
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
    if (!NS_PLANTED(210)) __syncthreads();
    load<D>(in, t, keys_at<D>(base), in.keys, key + BLOCK);
    float rescale[2];
#pragma unroll
    for (int h = 0; h < 2; h++) {
      const float* of_row = maxima + (lane >> 2) + 8 * h;
      rescale[h] = grow_max(max[h], fmaxf(fmaxf(of_row[0], of_row[16]), fmaxf(of_row[32], of_row[48])), in.scale);
      const float offset = -finite_max(max[h]);
#pragma unroll
      for (int n = 0; n < 4; n++)
#pragma unroll
        for (int i = 2 * h; i < 2 * h + 2; i++) s[n][i] = ns_ex2(ns_fma(s[n][i], in.scale, offset));
      sums[(warp * 32 + lane) * 2 + h] = part_sum(s, 0, h);
    }
#pragma unroll
    for (int j = 0; j < 2; j++)
      weights[(warp * 2 + j) * 32 + lane] =
          u32x4{ns_pack(s[2 * j][0], s[2 * j][1]), ns_pack(s[2 * j][2], s[2 * j][3]),
                ns_pack(s[2 * j + 1][0], s[2 * j + 1][1]), ns_pack(s[2 * j + 1][2], s[2 * j + 1][3])};
    ns_cp_wait<1>();
    if (!NS_PLANTED(211)) __syncthreads();
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
      for (int n = 0; n < D / 32; n++) out[n][i] *= rescale[i >> 1];
#pragma unroll
    for (int h = 0; h < 2; h++) {
      const float* of_lane = sums + lane * 2 + h;
      sum[h] = ns_fma(sum[h], rescale[h], block_sum(of_lane[0], of_lane[64], of_lane[128], of_lane[192]));
    }
#pragma unroll
    for (int step = 0; step < STEPS; step++) {
      const u32x4 w = weights[step * 32 + lane];
      const u32 p[4] = {w.x, w.y, w.z, w.w};
      add_16<D>(out, p, values_at<D>(base), step * 16, warp * (D / 32));
    }
    __syncthreads();
    load<D>(in, t, values_at<D>(base), in.values, key + BLOCK);
  }

  sum[0] = row_sum(sum[0]);
  sum[1] = row_sum(sum[1]);
  put<D>(in, t, out, max, sum, warp * (D / 4), warp == 0);
  fold<D, D>(in, t, 0, arrived);
}

}  // namespace attention_decode

NS_DECODE_ATTENTION(attention_split_d64, attention_decode::split, 64, 128)
NS_DECODE_ATTENTION(attention_split_d128, attention_decode::split, 128, 128)
