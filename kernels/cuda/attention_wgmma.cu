// The rows of attention.cu on Hopper, with the same bits (sm_90a only): the scores and the outputs are products of wgmma.
//
// One warpgroup fetches, two compute 64 rows each. Pages come by
// cp.async and not by TMA, because the last one's rows beyond the sequence are to be finite: they repeat the last key. Scores
// lie in wgmma's accumulator as they do in mma.sync's, so that what becomes of them is attention_rows.cuh's, too, and
// weights go from there into the second product in registers; their sum is mma.sync's. Start at forward().
#include "device.cuh"
#include "attention_rows.cuh"

#if defined(__CUDA_ARCH_FEAT_SM90_ALL) || defined(NS_EMU)

namespace attention_wgmma {
using namespace attention_rows;

enum { THREADS = 384, STAGES = 3, LAG = STAGES - 2, SWIZZLED = 128 };  // bytes of a row of a block of 64 columns

// Bytes from the start of a tile of N rows, in blocks of 64 columns, to 16-byte chunk `chunk` of `row`.
template <int N>
NS_DEV u32 block_at(int row, int chunk) {
  return (u32)(((chunk >> 3) * N + row) * SWIZZLED + (((chunk & 7) ^ (row & 7)) << 4));
}

// Shared memory, in bytes: queries, then the stages' keys and values, then what splits are folded into.
template <int D>
NS_DEV u32 keys_at(u32 base, int stage) { return base + (ROWS + stage * 2 * NS_KV_PAGE) * D * 2; }

// Barriers of a stage: "has been filled", by the 4 warps that fetch; "has been read", by the 8 that compute.
struct Barriers {
  u32 full, empty;
};

// Copies what is a whole number of pages of 64 rows, or the last one.
template <int D>
NS_DEV void load_blocks(u32 to, const bf16_t* from, int rows) {
#pragma unroll
  for (int i = 0; i < NS_KV_PAGE * D / 8 / 128; i++) {
    const int c = (threadIdx.x & 127) + i * 128, row = c / (D / 8), chunk = c % (D / 8);
    ns_cp16(to + block_at<NS_KV_PAGE>(row, chunk), from + (long)(row < rows ? row : rows - 1) * D + chunk * 8);
  }
}

// A stage is handed on when its copies have landed, which is asked LAG pages later. No later than that: a stage is free again when
// those who compute have begun the page after it. wgmma reads what the fence has seen.
template <int D>
NS_DEV void fetch(const Arguments& in, const Tile& t, u32 base, Barriers bars) {
  for (int block = 0; block < t.blocks + LAG; block++) {
    if (block < t.blocks) {
      const int stage = block % STAGES;
      ns_mbar_wait(bars.empty + 8 * stage, (block / STAGES & 1) ^ 1);
      const long at = ns_kv_tile(t.pages[block], in.kv_heads, t.kv_head, D);
      const u32 to = keys_at<D>(base, stage);
      load_blocks<D>(to, in.keys + at, t.length - block * NS_KV_PAGE);
      load_blocks<D>(to + NS_KV_PAGE * D * 2, in.values + at, t.length - block * NS_KV_PAGE);
    }
    ns_cp_commit();
    if (block >= LAG) {
      ns_cp_wait<LAG + NS_PLANTED(230)>();
      ns_fence_async();
      ns_syncwarp();
      if ((threadIdx.x & 31) == 0) ns_mbar_arrive(bars.full + 8 * ((block - LAG) % STAGES));
    }
  }
}

// scores = queries . keys^T, begun.
template <int D>
NS_DEV void begin_scores(float (&scores)[32], u32 queries, u32 keys) {
#pragma unroll
  for (int k = 0; k < D / 16; k++) {
    const u32 in_row = (k & 3) * 32 >> NS_PLANTED(231);
    ns_wgmma_n64(scores, ns_desc(queries + (k >> 2) * ROWS * SWIZZLED + in_row),
                 ns_desc(keys + (k >> 2) * NS_KV_PAGE * SWIZZLED + in_row), k > 0);
  }
  ns_wg_commit();
}

// out += p . values, begun.
template <int D>
NS_DEV void begin_outputs(float (&out)[D / 2], const u32 (&p)[4][4], u32 values) {
#pragma unroll
  for (int k = 0; k < 4; k++) {
    const u64 rows = ns_desc_down(values + k * 16 * SWIZZLED, NS_KV_PAGE * SWIZZLED);
    if constexpr (D == 64) ns_wgmma_left_n64(out, p[k], rows);
    else ns_wgmma_left_n128(out, p[k], rows);
  }
  ns_wg_commit();
}

NS_DEV void hold(u32 (&p)[4][4]) {
#pragma unroll
  for (int k = 0; k < 4; k++) ns_wg_hold(p[k]);
}

// Weights go into their sum.
template <int D>
NS_DEV void add_sums(Sums<D>& a, const u32 (&p)[4][4]) {
#pragma unroll
  for (int k = 0; k < 4; k++) ns_mma(a.sum[0], p[k], BF16_ONES, BF16_ONES);
}

// Warpgroup `half` of the two that compute. While the tensor cores add one page's values, the next page's scores become weights;
// not across the end of a split, where the maxima start anew.
template <int D>
NS_DEV void compute(const Arguments& in, const Tile& t, u32 base, float* totals, Barriers bars, int half) {
  const int thread = threadIdx.x & 127, first = t.first + half * 64;
  const u32 queries = base + half * 64 * SWIZZLED;
#pragma unroll
  for (int i = 0; i < 64 * D / 8 / 128; i++) {
    const int c = thread + i * 128, row = c / (D / 8), chunk = c % (D / 8);
    ns_cp16(queries + block_at<ROWS>(row, chunk), in.q + place<D>(t, first + row, in.q_ld) + chunk * 8);
  }
  ns_cp_commit();
  ns_cp_wait<0>();
  ns_fence_async();
  ns_bar_sync(1 + half, 128);

  // A warpgroup multiplies while one of its warps has to: a page that a row does not see changes nothing.
  const int end = first + 64 < t.rows ? first + 64 : t.rows;
  const int blocks = first < t.rows ? (t.start + (end - 1) / t.group) / NS_KV_PAGE + 1 : 0;
  const Mine m = mine(t, first + (thread >> 5) * 16);
  Sums<D> a;
  InShared total = {totals + half * 128 + thread};
  start(a, total);
  const auto wait = [&](int block) { ns_mbar_wait(bars.full + 8 * (block % STAGES), block / STAGES & 1); };
  const auto read = [&](int block) {
    ns_syncwarp();
    if ((thread & 31) == 0) ns_mbar_arrive(bars.empty + 8 * (block % STAGES));
  };
  float s[8][4], by[2];
  u32 p[4][4];  // as long as a product reads it, it stays as it is
  auto& scores = reinterpret_cast<float(&)[32]>(s);
  auto& out = reinterpret_cast<float(&)[D / 2]>(a.out);
  for (int block = 0; block < blocks; block++) {
    wait(block);
    ns_wg_fence();
    begin_scores<D>(scores, queries, keys_at<D>(base, block % STAGES));
    ns_wg_wait<NS_PLANTED(232)>();
    ns_wg_hold(scores);
    weigh(a.max, s, m, block * NS_KV_PAGE, in.scale, by);
    round_weights(p, s);
    for (; !ends_split(block, blocks); block++) {
      wait(block + 1);
      hold(p);
      ns_wg_hold(scores);
      ns_wg_hold(out);
      ns_wg_fence();
      begin_scores<D>(scores, queries, keys_at<D>(base, (block + 1) % STAGES));
      begin_outputs<D>(out, p, keys_at<D>(base, block % STAGES) + NS_KV_PAGE * D * 2);
      ns_wg_wait<1>();
      ns_wg_hold(scores);
      add_sums(a, p);
      weigh(a.max, s, m, (block + 1) * NS_KV_PAGE, in.scale, by);
      ns_wg_wait<0>();
      ns_wg_hold(out);
      read(block);
      rescale(a, by);
      round_weights(p, s);
    }
    hold(p);
    ns_wg_hold(out);
    ns_wg_fence();
    begin_outputs<D>(out, p, keys_at<D>(base, block % STAGES) + NS_KV_PAGE * D * 2);
    ns_wg_wait<0>();
    ns_wg_hold(out);
    add_sums(a, p);
    read(block);
    end_split(a, total);
  }
  for (int block = blocks; block < t.blocks; block++) {
    wait(block);
    read(block);
  }
  store(in, t, first + (thread >> 5) * 16, a, total);
}

template <int D>
NS_DEV void forward(const Arguments& in) {
  NS_DYN_SMEM(memory);
  NS_SHARED(u64, barriers, [2 * STAGES]);
  const u32 base = ns_smem(memory);
  const Barriers bars = {ns_smem(barriers), ns_smem(barriers + STAGES)};
  if (threadIdx.x == 0) {
    for (int stage = 0; stage < STAGES; stage++) {
      ns_mbar_init(bars.full + 8 * stage, 4);
      ns_mbar_init(bars.empty + 8 * stage, 8);
    }
    ns_fence_async();
  }
  __syncthreads();
  const Tile t = find(in);
  if (threadIdx.x < 128) {
    ns_regs_dec<56>();
    fetch<D>(in, t, base, bars);
  } else {
    ns_regs_inc<216>();
    float* const totals = (float*)(memory + (ROWS + STAGES * 2 * NS_KV_PAGE) * D * 2);
    compute<D>(in, t, base, totals, bars, threadIdx.x / 128 - 1);
  }
}

}  // namespace attention_wgmma

NS_ATTENTION_ROWS(attention_wgmma_d64, attention_wgmma::forward, 64, 384)
NS_ATTENTION_ROWS(attention_wgmma_d128, attention_wgmma::forward, 128, 384)
#endif
