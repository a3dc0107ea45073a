// Attention of one query row for each sequence over its paged cache: the decode step. The bits are those of attention.cu.
//
// attention_split: a block for each (split of 512 keys, key head, sequence). The heads of the group are the rows of one
// tensor-core tile. For each page the four warps score 16 keys each, agree on the rows' maxima, exchange weights, and
// then own a quarter of the columns of the output. attention_combine folds the splits in ascending order.
//
// Reading is all that counts here, and several blocks a multiprocessor hide what each of them waits for: two stages of pages, so that
// three blocks with heads of 128 fit (and one on an architecture with 100 KiB). Groups of up to 16 heads. Start at split().
#include "device.cuh"
#include "attention.cuh"

namespace attention_decode {
using namespace attention;

enum { WARPS = 4, THREADS = 32 * WARPS, STAGES = 2 };

// Shared memory, in bytes: queries (16 rows), the stages' keys and values, weights by (step of 16 keys, lane), maxima.
template <int D>
NS_DEV u32 keys_at(u32 base, int stage) { return base + (16 + stage * 2 * NS_KV_PAGE) * D * 2; }
template <int D>
NS_DEV u32 values_at(u32 base, int stage) { return keys_at<D>(base, stage) + NS_KV_PAGE * D * 2; }
template <int D>
NS_DEV unsigned char* weights_at(unsigned char* memory) { return memory + (16 + STAGES * 2 * NS_KV_PAGE) * D * 2; }

// Parts of one split: out (sequence, head, split, D), and (max, sum) (sequence, head, split, 2).
// positions: (sequence) of the row, whose keys are 0 to it; below 0: the slot is idle · q: rows of q_ld, heads first ·
// most: keys that the page table and the splits have room for · scale: log2(e) / sqrt(D) · grid: (splits, kv_heads, sequences).
template <int D>
NS_DEV void split(const bf16_t* NS_RESTRICT q, const bf16_t* NS_RESTRICT keys, const bf16_t* NS_RESTRICT values,
                  const int* NS_RESTRICT pages, const int* NS_RESTRICT positions, float* NS_RESTRICT part_out,
                  float* NS_RESTRICT part_sums, int heads, int kv_heads, int pages_ld, int q_ld, int most, float scale) {
  NS_DYN_SMEM(memory);
  const u32 base = ns_smem(memory);
  u32x4* const weights = (u32x4*)weights_at<D>(memory);  // [4][32]
  float* const maxima = (float*)(weights + 4 * 32);      // [4][16]
  const int warp = threadIdx.x >> 5, lane = threadIdx.x & 31;
  const int group = heads / kv_heads, kv_head = blockIdx.y, sequence = blockIdx.z;
  const int length = positions[sequence] + 1, first = blockIdx.x * NS_KV_SPLIT_PAGES;
  if (first * NS_KV_PAGE >= length || length > most) return;
  const int end = (length + NS_KV_PAGE - 1) / NS_KV_PAGE;
  const int count = end - first < NS_KV_SPLIT_PAGES ? end - first : NS_KV_SPLIT_PAGES;
  pages += (long)sequence * pages_ld + first;

  const auto load = [&](int block) {
    if (block < count) {
      const long at = ns_kv_tile(pages[block], kv_heads, kv_head, D);
      const int rows = length - (first + block) * NS_KV_PAGE;
      load_page<D, THREADS>(keys_at<D>(base, block % STAGES), keys + at, rows);
      load_page<D, THREADS>(values_at<D>(base, block % STAGES), values + at, rows);
    }
    ns_cp_commit();
  };
#pragma unroll
  for (int c = threadIdx.x; c < 16 * D / 8; c += THREADS) {
    const int row = c / (D / 8), chunk = c % (D / 8), head = row < group ? row : group - 1;
    ns_cp16(base + tile_at<D>(row, chunk), q + (long)sequence * q_ld + (kv_head * group + head) * D + chunk * 8);
  }
#pragma unroll
  for (int i = 0; i < STAGES - 1; i++) load(i);

  float out[D / 32][4], sum[1][4], max[2] = {minus_infinity(), minus_infinity()};
  clear(out);
  clear(sum);
  for (int block = 0; block < count; block++) {
    ns_cp_wait<STAGES - 2 + NS_PLANTED(212)>();
    __syncthreads();
    load(block + STAGES - 1);
    const u32 k = keys_at<D>(base, block % STAGES), v = values_at<D>(base, block % STAGES);
    float s[2][4];
    dot<D>(s, base, 0, k, warp * 16);
    const int seen = length - (first + block) * NS_KV_PAGE - warp * 16 - (lane & 3) * 2;
#pragma unroll
    for (int n = 0; n < 2; n++)
#pragma unroll
      for (int i = 0; i < 4; i++)
        if (n * 8 + (i & 1) >= seen) s[n][i] = minus_infinity();
#pragma unroll
    for (int h = 0; h < 2; h++) {
      const float mine = row_max(fmaxf(fmaxf(s[0][2 * h], s[0][2 * h + 1]), fmaxf(s[1][2 * h], s[1][2 * h + 1])));
      if ((lane & 3) == 0) maxima[warp * 16 + (lane >> 2) + 8 * h] = mine;
    }
    if (!NS_PLANTED(210)) __syncthreads();
    float rescale[2];
#pragma unroll
    for (int h = 0; h < 2; h++) {
      const float* of_row = maxima + (lane >> 2) + 8 * h;
      rescale[h] = grow_max(max[h], fmaxf(fmaxf(of_row[0], of_row[16]), fmaxf(of_row[32], of_row[48])), scale);
      const float offset = -finite_max(max[h]);
#pragma unroll
      for (int n = 0; n < 2; n++)
#pragma unroll
        for (int i = 2 * h; i < 2 * h + 2; i++) s[n][i] = ns_exp2_low(ns_fma(s[n][i], scale, offset));
    }
    weights[warp * 32 + lane] = u32x4{ns_pack(s[0][0], s[0][1]), ns_pack(s[0][2], s[0][3]), ns_pack(s[1][0], s[1][1]),
                                      ns_pack(s[1][2], s[1][3])};
    if (!NS_PLANTED(211)) __syncthreads();
#pragma unroll
    for (int i = 0; i < 4; i++) {
#pragma unroll
      for (int n = 0; n < D / 32; n++) out[n][i] *= rescale[i >> 1];
      sum[0][i] *= rescale[i >> 1];
    }
#pragma unroll
    for (int step = 0; step < 4; step++) {
      const u32x4 w = weights[step * 32 + lane];
      const u32 p[4] = {w.x, w.y, w.z, w.w};
      add_16<D>(out, p, v, step * 16, warp * (D / 32));
      ns_mma(sum[0], p, BF16_ONES, BF16_ONES);
    }
  }

#pragma unroll
  for (int h = 0; h < 2; h++) {
    const int row = (lane >> 2) + 8 * h;
    if (row >= group) continue;
    const long at = ((long)sequence * heads + kv_head * group + row) * gridDim.x + blockIdx.x;
    float* to = part_out + at * D + warp * (D / 4) + (lane & 3) * 2;
#pragma unroll
    for (int n = 0; n < D / 32; n++) {
      to[n * 8] = out[n][2 * h];
      to[n * 8 + 1] = out[n][2 * h + 1];
    }
    if (warp == 0 && (lane & 3) == 0) {
      part_sums[at * 2] = max[h];
      part_sums[at * 2 + 1] = sum[0][2 * h];
    }
  }
}

// A thread for each element of one head: grid (heads, sequences), D threads. Rows of idle slots stay as they are; those of a
// sequence with more keys than there is room for become NaN.
template <int D>
NS_DEV void combine(const float* NS_RESTRICT part_out, const float* NS_RESTRICT part_sums, const int* NS_RESTRICT positions,
                    bf16_t* NS_RESTRICT out, int splits, int out_ld, int most) {
  const int head = blockIdx.x, sequence = blockIdx.y, t = threadIdx.x;
  const int length = positions[sequence] + 1;
  bf16_t* const to = out + (long)sequence * out_ld + head * D + t;
  if (length <= 0) return;
  if (length > most) {
    to[0] = 0x7fff;
    return;
  }
  const int count = (length + NS_KV_SPLIT - 1) / NS_KV_SPLIT;
  const long first = ((long)sequence * gridDim.x + head) * splits;
  float total = 0.0f, sum = 0.0f, max = minus_infinity();
  for (int i = 0; i < count; i++) {
    const Fold fold = fold_split(max, sum, part_sums[(first + i) * 2], part_sums[(first + i) * 2 + 1]);
    total = ns_fma(part_out[(first + i) * D + t], fold.now, total * fold.before);
  }
  to[0] = ns_f2bf(finished(total, 1.0f / sum));
}

}  // namespace attention_decode

#define NS_DECODE_ATTENTION(D)                                                                                                \
  NS_KERNEL void __launch_bounds__(128) attention_split_d##D(                                                                 \
      const bf16_t* NS_RESTRICT q, const bf16_t* NS_RESTRICT keys, const bf16_t* NS_RESTRICT values,                          \
      const int* NS_RESTRICT pages, const int* NS_RESTRICT positions, float* NS_RESTRICT part_out,                            \
      float* NS_RESTRICT part_sums, int heads, int kv_heads, int pages_ld, int q_ld, int most, float scale) {                 \
    attention_decode::split<D>(q, keys, values, pages, positions, part_out, part_sums, heads, kv_heads, pages_ld, q_ld, most, \
                               scale);                                                                                        \
  }                                                                                                                           \
  NS_KERNEL void __launch_bounds__(D) attention_combine_d##D(                                                                 \
      const float* NS_RESTRICT part_out, const float* NS_RESTRICT part_sums, const int* NS_RESTRICT positions,                \
      bf16_t* NS_RESTRICT out, int splits, int out_ld, int most) {                                                            \
    attention_decode::combine<D>(part_out, part_sums, positions, out, splits, out_ld, most);                                  \
  }
NS_DECODE_ATTENTION(64)
NS_REGISTER(attention_split_d64);
NS_REGISTER(attention_combine_d64);
NS_DECODE_ATTENTION(128)
NS_REGISTER(attention_split_d128);
NS_REGISTER(attention_combine_d128);
