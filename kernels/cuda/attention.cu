// Causal grouped-query attention over a paged cache: rows of any number of sequences, each with its own number of rows and
// first position, so a whole prompt, a chunk of one, and a training sample are the same call and the same bits.
//
// A block computes 128 query rows of one key head: (position, head of the group) flattened, position major, so that the
// heads of a group share the keys and values in shared memory. A warp owns 16 of the rows from beginning to end. Keys come while
// the block before is weighed and added, values while scores are computed: so two pages of each are in 99 KB with the queries.
// The order of sums is that of attention.cuh.
//
// Does not know: who wrote the cache (rope.cu), gradients (attention_backward.cu), single rows (decode_attention.cu), wgmma
// (attention_wgmma.cu): all with the same bits. Start at forward().
#include "device.cuh"
#include "attention_rows.cuh"

namespace attention_forward {
using namespace attention_rows;

enum { THREADS = 256 };

// Shared memory, in bytes: queries, then a block of keys, and one of values.
template <int D>
NS_DEV u32 keys_at(u32 base) { return base + ROWS * D * 2; }
template <int D>
NS_DEV u32 values_at(u32 base) { return keys_at<D>(base) + BLOCK * D * 2; }

// A block's pages; of one that the sequence has not got, its last page again, which is finite. Not unrolled: it runs where every
// register is taken.
template <int D>
NS_DEV void load(const Arguments& in, const Tile& t, u32 to, const bf16_t* from, int block) {
  const int last = t.length - 1;
#pragma unroll 1
  for (int c = threadIdx.x; c < BLOCK * D / 8; c += THREADS) {
    const int row = c / (D / 8), chunk = c % (D / 8), key = block * BLOCK + row < last ? block * BLOCK + row : last;
    ns_cp16(to + tile_at<D>(row, NS_PLANTED(202) ? chunk ^ 1 : chunk),
            from + ns_kv_row(t.pages, key, in.kv_heads, t.kv_head, D) + chunk * 8);
  }
  ns_cp_commit();
}

template <int D>
NS_DEV void end_split(Sums<D>& a, float (&total)[D / 8][4]) {
#pragma unroll
  for (int h = 0; h < 2; h++) {
    const Fold fold = fold_split(a.total_max[h], a.total_sum[h], a.max[h], row_sum(a.sum[h]));
#pragma unroll
    for (int n = 0; n < D / 8; n++)
#pragma unroll
      for (int i = 2 * h; i < 2 * h + 2; i++) total[n][i] = ns_fma(a.out[n][i], fold.now, total[n][i] * fold.before);
  }
  clear(a.out);
  start_split(a.max, a.sum);
}

template <int D>
NS_DEV_MEMBER void forward(const Arguments& in) {
  NS_DYN_SMEM(memory);
  NS_SHARED(Tile, tile, [1]);  // where it takes no registers
  const u32 base = ns_smem(memory);
  if (threadIdx.x == 0) tile[0] = find(in, blockIdx.x, blockIdx.y);
  __syncthreads();
  const Tile& t = tile[0];
#pragma unroll 2
  for (int i = 0; i < ROWS * D / 8 / THREADS; i++) {
    const int c = threadIdx.x + i * THREADS, row = c / (D / 8), chunk = c % (D / 8);
    ns_cp16(base + tile_at<D>(row, chunk), in.q + place<D>(t, t.first + row, in.q_ld) + chunk * 8);
  }
  load<D>(in, t, keys_at<D>(base), in.keys, 0);
  load<D>(in, t, values_at<D>(base), in.values, 0);

  const int row = (threadIdx.x >> 5) * 16, first = t.first + row;
  const Mine m = mine(t, first);
  Sums<D> a;
  float total[D / 8][4], s[16][4], offset[2], by[2];
  u32 p[8][4];
  start(a);
  clear(total);
  for (int block = 0; block < t.blocks; block++) {
    ns_cp_wait<1 + NS_PLANTED(201)>();
    if (!NS_PLANTED(200)) __syncthreads();
    dot<D>(s, base, row, keys_at<D>(base), 0);
    __syncthreads();
    if (block + 1 < t.blocks) load<D>(in, t, keys_at<D>(base), in.keys, block + 1);
    else ns_cp_commit();
    refer(a.max, s, m, block * BLOCK, in.scale, offset, by);
    weigh(s, in.scale, offset);
    add_sums(a.sum, s, by);
    rescale(a, by);
    round_weights(p, s);
    ns_cp_wait<1>();
    __syncthreads();
#pragma unroll
    for (int k = 0; k < 8; k++) add_16<D>(a.out, p[k], values_at<D>(base), k * 16, 0);
    if (ends_split(block, t.blocks)) end_split(a, total);
    __syncthreads();
    if (block + 1 < t.blocks) load<D>(in, t, values_at<D>(base), in.values, block + 1);
    else ns_cp_commit();
  }
  ns_cp_wait<0>();
  store(in, t, first, a, total);
}

}  // namespace attention_forward

// grid: (tiles, kv_heads).
#define NS_ATTENTION_ROWS(NAME, D)                                                                                           \
  NS_KERNEL void __launch_bounds__(256, 1) NAME(                                                                             \
      const bf16_t* NS_RESTRICT q, const bf16_t* NS_RESTRICT keys, const bf16_t* NS_RESTRICT values,                         \
      const int* NS_RESTRICT pages, const int* NS_RESTRICT tiles, const int* NS_RESTRICT sequences, bf16_t* NS_RESTRICT out, \
      float* NS_RESTRICT lse, int heads, int kv_heads, int pages_ld, int q_ld, int out_ld, float scale) {                    \
    attention_forward::forward<D>(attention_rows::Arguments{q, keys, values, pages, tiles, sequences, out, lse, heads,       \
                                                            kv_heads, pages_ld, q_ld, out_ld, scale});                       \
  }                                                                                                                          \
  NS_REGISTER(NAME);
NS_ATTENTION_ROWS(attention_d64, 64)
NS_ATTENTION_ROWS(attention_d128, 128)
