// Causal grouped-query attention over a paged cache: rows of any number of sequences, each with its own number of rows and
// first position, so a whole prompt, a chunk of one, and a training sample are the same call and the same bits.
//
// A block computes 128 query rows of one key head: (position, head of the group) flattened, position major, so that the
// heads of a group share the keys and values in shared memory. A warp owns 16 of the rows from beginning to end. Keys and
// values come in pages of 64 through two stages of cp.async. The order of sums is that of attention.cuh.
//
// Does not know: who wrote the cache (rope.cu), gradients (attention_backward.cu), single rows (decode_attention.cu has
// the same bits, faster). Start at forward().
#include "device.cuh"
#include "attention.cuh"

namespace attention_forward {
using namespace attention;

enum { WARPS = 8, THREADS = 32 * WARPS, ROWS = 16 * WARPS };

// Shared memory, in bytes: queries, then two stages of keys and values.
template <int D>
NS_DEV u32 keys_at(u32 base, int stage) { return base + (ROWS + stage * 2 * NS_KV_PAGE) * D * 2; }
template <int D>
NS_DEV u32 values_at(u32 base, int stage) { return keys_at<D>(base, stage) + NS_KV_PAGE * D * 2; }

// A warp's accumulators over one split, and over all splits before it.
template <int D>
struct Sums {
  float out[D / 8][4], sum[1][4], max[2];
  float total[D / 8][4], total_sum[2], total_max[2];
};

template <int D>
NS_DEV void start_split(Sums<D>& a) {
  clear(a.out);
  clear(a.sum);
  a.max[0] = a.max[1] = minus_infinity();
}

template <int D>
NS_DEV void end_split(Sums<D>& a) {
#pragma unroll
  for (int h = 0; h < 2; h++) {
    const Fold fold = fold_split(a.total_max[h], a.total_sum[h], a.max[h], a.sum[0][2 * h]);
#pragma unroll
    for (int n = 0; n < D / 8; n++)
#pragma unroll
      for (int i = 2 * h; i < 2 * h + 2; i++) a.total[n][i] = ns_fma(a.out[n][i], fold.now, a.total[n][i] * fold.before);
  }
}

// One page of keys for a warp's 16 rows; `seen[h]` keys of the page are seen by row h (64 and more: all).
template <int D>
NS_DEV void attend(Sums<D>& a, u32 queries, u32 keys, u32 values, const int (&seen)[2], float scale) {
  const int column = (threadIdx.x & 3) * 2;
  float s[8][4];
  dot<D>(s, queries, (threadIdx.x >> 5) * 16, keys, 0);
  if (seen[0] < NS_KV_PAGE || seen[1] < NS_KV_PAGE) {
#pragma unroll
    for (int n = 0; n < 8; n++)
#pragma unroll
      for (int i = 0; i < 4; i++)
        if (n * 8 + column + (i & 1) >= seen[i >> 1]) s[n][i] = minus_infinity();
  }
  float rescale[2];
#pragma unroll
  for (int h = 0; h < 2; h++) {
    float largest = fmaxf(s[0][2 * h], s[0][2 * h + 1]);
#pragma unroll
    for (int n = 1; n < 8; n++) largest = fmaxf(largest, fmaxf(s[n][2 * h], s[n][2 * h + 1]));
    rescale[h] = grow_max(a.max[h], row_max(largest), scale);
  }
  const float offset[2] = {-finite_max(a.max[0]), -finite_max(a.max[1])};
#pragma unroll
  for (int n = 0; n < 8; n++)
#pragma unroll
    for (int i = 0; i < 4; i++) s[n][i] = ns_exp2_low(ns_fma(s[n][i], scale, offset[i >> 1]));
#pragma unroll
  for (int n = 0; n < D / 8; n++)
#pragma unroll
    for (int i = 0; i < 4; i++) a.out[n][i] *= rescale[i >> 1];
#pragma unroll
  for (int i = 0; i < 4; i++) a.sum[0][i] *= rescale[i >> 1];
#pragma unroll
  for (int k = 0; k < 4; k++) {
    const u32 p[4] = {ns_pack(s[2 * k][0], s[2 * k][1]), ns_pack(s[2 * k][2], s[2 * k][3]),
                      ns_pack(s[2 * k + 1][0], s[2 * k + 1][1]), ns_pack(s[2 * k + 1][2], s[2 * k + 1][3])};
    add_16<D>(a.out, p, values, k * 16, 0);
    ns_mma(a.sum[0], p, BF16_ONES, BF16_ONES);
  }
}

// tiles: (block of the grid: 2) sequence and its first row among rows * group · sequences: (sequence: 4) first row in q and out,
// rows, position of the first row, row of the page table · q: rows of q_ld, heads first · out: rows of out_ld ·
// lse: (row, head), log2 of the sum of 2^(score * scale), or null · scale: log2(e) / sqrt(D) · grid: (tiles, kv_heads).
template <int D>
NS_DEV void forward(const bf16_t* NS_RESTRICT q, const bf16_t* NS_RESTRICT keys, const bf16_t* NS_RESTRICT values,
                    const int* NS_RESTRICT pages, const int* NS_RESTRICT tiles, const int* NS_RESTRICT sequences,
                    bf16_t* NS_RESTRICT out, float* NS_RESTRICT lse, int heads, int kv_heads, int pages_ld, int q_ld, int out_ld,
                    float scale) {
  NS_DYN_SMEM(memory);
  const u32 base = ns_smem(memory);
  const int warp = threadIdx.x >> 5, lane = threadIdx.x & 31;
  const int group = heads / kv_heads, kv_head = blockIdx.y;
  const int* sequence = sequences + 4 * tiles[2 * blockIdx.x];
  const int first = tiles[2 * blockIdx.x + 1], row0 = sequence[0], rows = sequence[1] * group, start = sequence[2];
  pages += (long)sequence[3] * pages_ld;
  const int last = (first + ROWS < rows ? first + ROWS : rows) - 1;  // of the tile's rows
  const int length = start + last / group + 1;                       // keys that the tile sees
  const int blocks = (length + NS_KV_PAGE - 1) / NS_KV_PAGE;

  const auto load = [&](int block) {
    const long at = ns_kv_tile(pages[block], kv_heads, kv_head, D);
    load_page<D, THREADS>(keys_at<D>(base, block & 1), keys + at, length - block * NS_KV_PAGE);
    load_page<D, THREADS>(values_at<D>(base, block & 1), values + at, length - block * NS_KV_PAGE);
  };
#pragma unroll
  for (int i = 0; i < ROWS * D / 8 / THREADS; i++) {
    const int c = threadIdx.x + i * THREADS, row = c / (D / 8), chunk = c % (D / 8);
    const int r = first + row < rows ? first + row : rows - 1;
    ns_cp16(base + tile_at<D>(row, chunk), q + (long)(row0 + r / group) * q_ld + (kv_head * group + r % group) * D + chunk * 8);
  }
  load(0);
  ns_cp_commit();
  ns_cp_wait<0>();
  __syncthreads();

  const int mine = first + warp * 16;  // this warp's first row
  int position[2];                     // of this lane's two rows; rows behind the last one see nothing that others do not
#pragma unroll
  for (int h = 0; h < 2; h++) position[h] = start + (mine + (lane >> 2) + 8 * h) / group;
  const int reach = start + (mine + 15 < rows ? mine + 15 : rows - 1) / group;  // the last position of this warp's rows
  const bool idle = mine >= rows;

  Sums<D> a;
  start_split(a);
  clear(a.total);
#pragma unroll
  for (int h = 0; h < 2; h++) {
    a.total_sum[h] = 0.0f;
    a.total_max[h] = minus_infinity();
  }
  for (int block = 0; block < blocks; block++) {
    if (block + 1 < blocks) load(block + 1);
    ns_cp_commit();
    const int key = block * NS_KV_PAGE;
    if (!idle && key <= reach) {
      const int seen[2] = {position[0] + 1 - key, position[1] + 1 + NS_PLANTED(203) - key};
      attend<D>(a, base, keys_at<D>(base, block & 1), values_at<D>(base, block & 1), seen, scale);
    }
    if ((block + NS_PLANTED(204)) % NS_KV_SPLIT_PAGES == NS_KV_SPLIT_PAGES - 1 || block == blocks - 1) {
      end_split(a);
      start_split(a);
    }
    ns_cp_wait<NS_PLANTED(201)>();
    if (!NS_PLANTED(200)) __syncthreads();
  }

#pragma unroll
  for (int h = 0; h < 2; h++) {
    const int r = mine + (lane >> 2) + 8 * h;
    if (r >= rows) continue;
    const int row = row0 + r / group, head = kv_head * group + r % group;
    const float inverse = 1.0f / a.total_sum[h];
    bf16_t* to = out + (long)row * out_ld + head * D + (lane & 3) * 2;
#pragma unroll
    for (int n = 0; n < D / 8; n++)
      *(u32*)(to + n * 8) = ns_pack(finished(a.total[n][2 * h], inverse), finished(a.total[n][2 * h + 1], inverse));
    if (lse && (lane & 3) == 0) lse[(long)row * heads + head] = a.total_max[h] + ns_log2(a.total_sum[h]);
  }
}

}  // namespace attention_forward

#define NS_ATTENTION(D)                                                                                                      \
  NS_KERNEL void __launch_bounds__(256, 1) attention_d##D(                                                                   \
      const bf16_t* NS_RESTRICT q, const bf16_t* NS_RESTRICT keys, const bf16_t* NS_RESTRICT values,                         \
      const int* NS_RESTRICT pages, const int* NS_RESTRICT tiles, const int* NS_RESTRICT sequences, bf16_t* NS_RESTRICT out, \
      float* NS_RESTRICT lse, int heads, int kv_heads, int pages_ld, int q_ld, int out_ld, float scale) {                    \
    attention_forward::forward<D>(q, keys, values, pages, tiles, sequences, out, lse, heads, kv_heads, pages_ld, q_ld,       \
                                  out_ld, scale);                                                                            \
  }
NS_ATTENTION(64)
NS_REGISTER(attention_d64);
NS_ATTENTION(128)
NS_REGISTER(attention_d128);
