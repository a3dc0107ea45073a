// Causal grouped-query attention over a paged cache: rows of any number of sequences, each with its own number of rows and
// first position, so a whole prompt, a chunk of one, and a training sample are the same call and the same bits.
//
// A block computes 128 query rows of one key head: (position, head of the group) flattened, position major, so that the
// heads of a group share the keys and values in shared memory. A warp owns 16 of the rows from beginning to end. Keys and
// values come in pages of 64 through two stages of cp.async. The order of sums is that of attention.cuh.
//
// Does not know: who wrote the cache (rope.cu), gradients (attention_backward.cu), single rows (decode_attention.cu), wgmma
// (attention_wgmma.cu): all with the same bits. Start at forward().
#include "device.cuh"
#include "attention_rows.cuh"

namespace attention_forward {
using namespace attention_rows;

enum { THREADS = 256 };

// Shared memory, in bytes: queries, then two stages of keys and values.
template <int D>
NS_DEV u32 keys_at(u32 base, int stage) { return base + (ROWS + stage * 2 * NS_KV_PAGE) * D * 2; }
template <int D>
NS_DEV u32 values_at(u32 base, int stage) { return keys_at<D>(base, stage) + NS_KV_PAGE * D * 2; }

// One page of keys for a warp's 16 rows.
template <int D>
NS_DEV void attend(Sums<D>& a, u32 queries, u32 keys, u32 values, const Mine& m, int key, float scale) {
  float s[8][4];
  u32 p[4][4];
  dot<D>(s, queries, (threadIdx.x >> 5) * 16, keys, 0);
  float by[2];
  weigh(a.max, s, m, key, scale, by);
  round_weights(p, s);
  rescale(a, by);
#pragma unroll
  for (int k = 0; k < 4; k++) {
    add_16<D>(a.out, p[k], values, k * 16, 0);
    ns_mma(a.sum[0], p[k], BF16_ONES, BF16_ONES);
  }
}

template <int D>
NS_DEV void forward(const Arguments& in) {
  NS_DYN_SMEM(memory);
  const u32 base = ns_smem(memory);
  const Tile t = find(in);
  const auto load = [&](int block) {
    const long at = ns_kv_tile(t.pages[block], in.kv_heads, t.kv_head, D);
    load_page<D, THREADS>(keys_at<D>(base, block & 1), in.keys + at, t.length - block * NS_KV_PAGE);
    load_page<D, THREADS>(values_at<D>(base, block & 1), in.values + at, t.length - block * NS_KV_PAGE);
  };
#pragma unroll
  for (int i = 0; i < ROWS * D / 8 / THREADS; i++) {
    const int c = threadIdx.x + i * THREADS, row = c / (D / 8), chunk = c % (D / 8);
    ns_cp16(base + tile_at<D>(row, chunk), in.q + place<D>(t, t.first + row, in.q_ld) + chunk * 8);
  }
  load(0);
  ns_cp_commit();
  ns_cp_wait<0>();
  __syncthreads();

  const int first = t.first + (threadIdx.x >> 5) * 16;
  const Mine m = mine(t, first);
  Sums<D> a;
  InRegisters<D> total;
  start(a, total);
  for (int block = 0; block < t.blocks; block++) {
    if (block + 1 < t.blocks) load(block + 1);
    ns_cp_commit();
    const int key = block * NS_KV_PAGE;
    if (key <= m.reach) attend<D>(a, base, keys_at<D>(base, block & 1), values_at<D>(base, block & 1), m, key, in.scale);
    if (ends_split(block, t.blocks)) end_split(a, total);
    ns_cp_wait<NS_PLANTED(201)>();
    if (!NS_PLANTED(200)) __syncthreads();
  }
  store(in, t, first, a, total);
}

}  // namespace attention_forward

NS_ATTENTION_ROWS(attention_d64, attention_forward::forward, 64, 256)
NS_ATTENTION_ROWS(attention_d128, attention_forward::forward, 128, 256)
