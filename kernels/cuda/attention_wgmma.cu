// The rows of attention.cu on Hopper, with the same bits (sm_90a only): the scores and the outputs are products of wgmma.
//
// Blocks stay, and take tile after tile. One warp fetches keys and values by TMA, two warpgroups compute 64 rows each and take
// turns at the tensor cores: while one multiplies, the other makes weights of scores. Within a warpgroup, the next block's scores
// are products that go on beside those with the last one's values. Scores lie in wgmma's accumulator as they do in mma.sync's, so
// that what becomes of them is attention_rows.cuh's, too; weights go from there into the second product in registers. What
// splits are folded into is in shared memory. Start at forward().
#include "device.cuh"
#include "attention_rows.cuh"

#if defined(__CUDA_ARCH_FEAT_SM90_ALL) || defined(NS_EMU)

namespace attention_wgmma {
using namespace attention_rows;

enum { THREADS = 384, STAGES = 2, SWIZZLED = 128 };  // bytes of a row of a block of 64 columns

// Named barriers, of the warpgroup that computes `half`: its own threads, and whose turn it is.
enum { OWN = 1, TURN = 3 };

struct Inputs {
  Arguments of;
  const ns_tmap *keys, *values;  // boxes of a page's rows and 64 columns
  int tiles;
};

// Shared memory, in bytes: queries, stages of keys and of values in blocks of 64 columns, what splits are folded into.
template <int D>
NS_DEV u32 keys_at(u32 base, int stage) { return base + (ROWS + stage * BLOCK) * D * 2; }
template <int D>
NS_DEV u32 values_at(u32 base, int stage) { return keys_at<D>(base, STAGES + stage); }

// Barriers of a stage, for keys and for values: "has been filled", "has been read" by the 8 warps that compute.
struct Barriers {
  u32 at;
};
NS_DEV u32 full(Barriers b, int which, int stage) { return b.at + 8 * (which * STAGES + stage); }
NS_DEV u32 empty(Barriers b, int which, int stage) { return b.at + 8 * ((2 + which) * STAGES + stage); }

// A block's n-th tile of all: the longest first, there and back again, so that everybody has as much to do.
NS_DEV int nth(int n) { return n * gridDim.x + (n & 1 ? gridDim.x - 1 - blockIdx.x : blockIdx.x); }

NS_DEV Tile find(const Inputs& in, int i) { return attention_rows::find(in.of, i / in.of.kv_heads, i % in.of.kv_heads); }

// The warp that fetches. All pages but a sequence's last are full of what is finite; of that one, the values behind the last key
// repeat it. For a page that the sequence has not got, its last one comes again.
template <int D>
NS_DEV void fetch(const Inputs& in, u32 base, Barriers bars) {
  const int lane = threadIdx.x & 31, count = in.tiles * in.of.kv_heads;
  int turn = 0;
  for (int n = 0, i; (i = nth(n)) < count; n++) {
    const Tile t = find(in, i);
    const int last = (t.written - 1) / NS_KV_PAGE;
    for (int block = 0; block < t.blocks; block++, turn++) {
      const int stage = turn % STAGES, phase = (turn / STAGES & 1) ^ 1;
      int page[BLOCK_PAGES], row[BLOCK_PAGES];
#pragma unroll
      for (int j = 0; j < BLOCK_PAGES; j++) {
        page[j] = block * BLOCK_PAGES + j < last ? block * BLOCK_PAGES + j : last;
        row[j] = (t.pages[page[j]] * in.of.kv_heads + t.kv_head) * NS_KV_PAGE;
      }
      const u32 keys = keys_at<D>(base, stage), values = values_at<D>(base, stage);
      ns_mbar_wait(empty(bars, 0, stage), phase);
      if (lane == 0) {
        const u32 bar = full(bars, 0, stage);
        ns_mbar_expect(bar, BLOCK * D * 2 - NS_PLANTED(233) * 16);
#pragma unroll
        for (int j = 0; j < BLOCK_PAGES; j++)
#pragma unroll
          for (int c = 0; c < D / 64; c++)
            ns_tma2d(keys + (c * BLOCK + j * NS_KV_PAGE) * SWIZZLED, in.keys, c * 64, row[j], bar);
      }
      ns_mbar_wait(empty(bars, 1, stage), phase);
      int bytes = 0;
#pragma unroll
      for (int j = 0; j < BLOCK_PAGES; j++) {
        const int rows = t.written - page[j] * NS_KV_PAGE;
        if (rows >= NS_KV_PAGE) {
          bytes += NS_KV_PAGE * D * 2;
          continue;
        }
        const u32 to = values + j * NS_KV_PAGE * D * 2;
        for (int c = lane; c < NS_KV_PAGE * D / 8; c += 32) {
          const int r = c / (D / 8), chunk = c % (D / 8);
          ns_cp16(to + ((chunk >> 3) * NS_KV_PAGE + r) * SWIZZLED + (((chunk & 7) ^ (r & 7)) << 4),
                  in.of.values + (long)(row[j] + (r < rows ? r : rows - 1)) * D + chunk * 8);
        }
        ns_cp_commit();
      }
      if (bytes < BLOCK * D * 2) {
        ns_cp_wait<NS_PLANTED(230) * 2>();
        ns_fence_async();
        ns_syncwarp();
      }
      if (lane == 0) {
        const u32 bar = full(bars, 1, stage);
        ns_mbar_expect(bar, bytes);
#pragma unroll
        for (int j = 0; j < BLOCK_PAGES; j++) {
          if (t.written - page[j] * NS_KV_PAGE < NS_KV_PAGE) continue;
#pragma unroll
          for (int c = 0; c < D / 64; c++)
            ns_tma2d(values + (j * D + c * 64) * SWIZZLED, in.values, c * 64, row[j], bar);
        }
      }
    }
  }
}

// scores = queries . keys^T, begun.
template <int D>
NS_DEV void begin_scores(float (&scores)[64], u32 queries, u32 keys) {
#pragma unroll
  for (int k = 0; k < D / 16; k++) {
    const u32 in_row = (k & 3) * 32 >> NS_PLANTED(231);
    ns_wgmma_n128(scores, ns_desc(queries + (k >> 2) * ROWS * SWIZZLED + in_row),
                  ns_desc(keys + (k >> 2) * BLOCK * SWIZZLED + in_row), k > 0);
  }
  ns_wg_commit();
}

// out += p . values, begun.
template <int D>
NS_DEV void begin_outputs(float (&out)[D / 2], const u32 (&p)[8][4], u32 values) {
#pragma unroll
  for (int k = 0; k < 8; k++) {
    const u64 rows = ns_desc_down(values + ((k >> 2) * D + (k & 3) * 16) * SWIZZLED, NS_KV_PAGE * SWIZZLED);
    if constexpr (D == 64) ns_wgmma_left_n64(out, p[k], rows);
    else ns_wgmma_left_n128(out, p[k], rows);
  }
  ns_wg_commit();
}

// Weights in registers: they were made before, and are changed behind.
NS_DEV void hold(u32 (&p)[8][4]) {
#pragma unroll
  for (int k = 0; k < 8; k++) ns_wg_hold(p[k]);
}

// A warpgroup's 64 rows of a tile's queries, on their way.
template <int D>
NS_DEV void load_queries(const Inputs& in, u32 queries, int tile, int half) {
  enum { STEP = 128 / (D / 8) };  // rows at once, whole groups of swizzled ones
  const Tile t = find(in, tile);
  const int first = (threadIdx.x & 127) / (D / 8), chunk = threadIdx.x % (D / 8);
  const u32 to = queries + ((chunk >> 3) * ROWS + first) * SWIZZLED + (((chunk & 7) ^ (first & 7)) << 4);
#pragma unroll 2
  for (int row = 0; row < 64; row += STEP)
    ns_cp16(to + row * SWIZZLED, in.of.q + place<D>(t, t.first + half * 64 + first + row, in.of.q_ld) + chunk * 8);
  ns_cp_commit();
}

// The outputs become those over all splits to here; `totals` are those before: a thread's first four, then every 256th four.
// Behind the first split there is nothing to do: what it folds with is 1.
template <int D>
NS_DEV void fold_outputs(Sums<D>& a, const f32x4* totals, const Fold (&fold)[2]) {
#pragma unroll
  for (int n = 0; n < D / 8; n++) {
    const f32x4 t = totals[n * 256];
    a.out[n][0] = ns_fma(a.out[n][0], fold[0].now, t.x * fold[0].before);
    a.out[n][1] = ns_fma(a.out[n][1], fold[0].now, t.y * fold[0].before);
    a.out[n][2] = ns_fma(a.out[n][2], fold[1].now, t.z * fold[1].before);
    a.out[n][3] = ns_fma(a.out[n][3], fold[1].now, t.w * fold[1].before);
  }
}

// Warpgroup `half` of the two that compute. A turn of the loop ends one block and begins the next, of the same tile or not.
template <int D>
NS_DEV void compute(const Inputs& in, u32 base, f32x4* totals, Barriers bars, int half) {
  const int count = in.tiles * in.of.kv_heads, row = (threadIdx.x / 32 - 4) * 16;
  const u32 queries = base + half * 64 * SWIZZLED;
  const auto wait = [&](int which, int turn) { ns_mbar_wait(full(bars, which, turn % STAGES), turn / STAGES & 1); };
  const auto read = [&](int which, int turn) {
    ns_syncwarp();
    if ((threadIdx.x & 31) == 0) ns_mbar_arrive(empty(bars, which, turn % STAGES));
  };
  totals += threadIdx.x - 128;
  float s[16][4], by[2];
  u32 p[8][4];  // as long as a product reads it, it stays as it is
  Sums<D> a;
  Mine m;
  auto& scores = reinterpret_cast<float(&)[64]>(s);
  auto& out = reinterpret_cast<float(&)[D / 2]>(a.out);
  // The n-th tile, whose block 0 is next.
  int n = 0, block = 0, blocks = 0;
  const auto begin_tile = [&] {
    const Tile t = find(in, nth(n));
    m = mine(t, t.first + row);
    blocks = t.blocks;
    block = 0;
    ns_cp_wait<NS_PLANTED(234)>();
    ns_fence_async();
    ns_bar_sync(OWN + half, 128);
  };
  // Once the last scores are there, the next tile's queries may come.
  const auto scored = [&] {
    if (block < blocks - 1) return;
    ns_bar_sync(OWN + half, 128);
    if (nth(n + 1) < count) load_queries<D>(in, queries, nth(n + 1), half);
  };
  if (half == 1) ns_bar_arrive(TURN, 256);
  if (nth(0) >= count) return;
  load_queries<D>(in, queries, nth(0), half);
  begin_tile();
  start(a);
  wait(0, 0);
  ns_wg_fence();
  begin_scores<D>(scores, queries, keys_at<D>(base, 0));
  ns_wg_wait<NS_PLANTED(232)>();
  ns_wg_hold(scores);
  read(0, 0);
  scored();
  weigh(a.max, a.sum, s, m, 0, in.of.scale, by);
  round_weights(p, s);

  bool folded = false, more = true;
  for (int turn = 0; more; turn++) {
    const bool ends = ends_split(block, blocks), ends_tile = block == blocks - 1;
    block++;
    if (ends_tile) {
      n++;
      more = nth(n) < count;
      if (more) begin_tile();
    }
    wait(1, turn);
    if (more) {
      wait(0, turn + 1);
      ns_bar_sync(TURN + half, 256);
    }
    hold(p);
    ns_wg_hold(scores);
    ns_wg_hold(out);
    ns_wg_fence();
    // Without more, these are scores of whatever is there, which nobody uses.
    begin_scores<D>(scores, queries, keys_at<D>(base, (turn + 1) % STAGES));
    begin_outputs<D>(out, p, values_at<D>(base, turn % STAGES));
    if (more) ns_bar_arrive(TURN + (half ^ 1), 256);
    ns_wg_wait<1>();
    ns_wg_hold(scores);
    if (more) {
      read(0, turn + 1);
      scored();
    }
    Fold fold[2];
    if (ends) {
#pragma unroll
      for (int h = 0; h < 2; h++) fold[h] = fold_split(a.total_max[h], a.total_sum[h], a.max[h], row_sum(a.sum[h]));
      start_split(a.max, a.sum);
    }
    weigh(a.max, a.sum, s, m, block * BLOCK, in.of.scale, by);
    ns_wg_hold(scores);
    ns_wg_hold(a.sum);
    // Has long been so; a loop, behind which the compiler does not put the weights' making.
    wait(1, turn);
    ns_wg_wait<0>();
    ns_wg_hold(out);
    read(1, turn);
    round_weights(p, s);
    if (ends) {
      if (folded) fold_outputs(a, totals, fold);
      folded = !ends_tile;
      if (ends_tile) {
        const Tile t = find(in, nth(n - 1));
        store(in.of, t, t.first + row, a, a.out);
        start_split(a.total_max, a.total_sum);
      } else {
#pragma unroll
        for (int j = 0; j < D / 8; j++) totals[j * 256] = f32x4{a.out[j][0], a.out[j][1], a.out[j][2], a.out[j][3]};
      }
      clear(a.out);
    } else {
      rescale(a, by);
    }
  }
}

template <int D>
NS_DEV void forward(const Inputs& in) {
  NS_DYN_SMEM(memory);
  NS_SHARED(u64, barriers, [4 * STAGES]);
  const Barriers bars = {ns_smem(barriers)};
  const u32 base = ns_smem(memory);
  if (threadIdx.x == 0) {
    for (int which = 0; which < 2; which++)
      for (int stage = 0; stage < STAGES; stage++) {
        ns_mbar_init(full(bars, which, stage), 1);
        ns_mbar_init(empty(bars, which, stage), 8);
      }
    ns_fence_async();
  }
  __syncthreads();
  if (threadIdx.x < 128) {
    ns_regs_dec<24>();
    if (threadIdx.x < 32) fetch<D>(in, base, bars);
  } else {
    ns_regs_inc<240>();
    compute<D>(in, base, (f32x4*)(memory + (ROWS + 2 * STAGES * BLOCK) * D * 2), bars, threadIdx.x / 128 - 1);
  }
}

}  // namespace attention_wgmma

// As many blocks as multiprocessors, 384 threads.
#define NS_ATTENTION_WGMMA(NAME, D)                                                                                          \
  NS_KERNEL void __launch_bounds__(384, 1) NAME(                                                                             \
      const bf16_t* NS_RESTRICT q, const __grid_constant__ ns_tmap keys, const __grid_constant__ ns_tmap values_map,         \
      const bf16_t* NS_RESTRICT values, const int* NS_RESTRICT pages, const int* NS_RESTRICT tiles,                          \
      const int* NS_RESTRICT sequences, bf16_t* NS_RESTRICT out, float* NS_RESTRICT lse, int heads, int kv_heads,            \
      int pages_ld, int q_ld, int out_ld, float scale, int count) {                                                          \
    attention_wgmma::forward<D>(attention_wgmma::Inputs{{q, nullptr, values, pages, tiles, sequences, out, lse, heads,       \
                                                         kv_heads, pages_ld, q_ld, out_ld, scale},                           \
                                                        &keys, &values_map, count});                                         \
  }                                                                                                                          \
  NS_REGISTER(NAME);
NS_ATTENTION_WGMMA(attention_wgmma_d64, 64)
NS_ATTENTION_WGMMA(attention_wgmma_d128, 128)
#endif
