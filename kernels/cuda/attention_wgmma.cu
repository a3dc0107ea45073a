// The rows of attention.cu on Hopper, with the same bits (sm_90a only): the scores and the outputs are products of wgmma.
//
// Blocks take tile after tile, as in gemm_wgmma.cu. A warp fetches keys and values by TMA, two others queries; two warpgroups compute 64 rows
// each and take turns at the tensor cores: while one multiplies, the other makes weights of scores. Within a warpgroup, the next
// block's scores, be it of this tile or of the next one, are products that go on beside those with the last one's values. Scores
// lie in wgmma's accumulator as they do in mma.sync's, so that what becomes of them is attention_rows.cuh's, too; weights go from
// there into the second product in registers. What splits are folded into is in shared memory. Start at forward().
#include "device.cuh"
#include "attention_rows.cuh"

#if defined(__CUDA_ARCH_FEAT_SM90_ALL) || defined(NS_EMU)

namespace attention_wgmma {
using namespace attention_rows;

enum { THREADS = 384, STAGES = 2, RECORDS = 4, SWIZZLED = 128 };  // bytes of a row of a block of 64 columns

// What a thread is launched with, and has then. What some give up is all that others get: if it is too little, they wait for ever.
enum { REGISTERS = 168, FETCH_REGISTERS = 24, COMPUTE_REGISTERS = 240 };
static_assert(FETCH_REGISTERS + 2 * COMPUTE_REGISTERS <= 3 * REGISTERS, "registers of a block");

// The named barriers of whose turn it is: this one and the next.
enum { TURN = 1 };

struct Inputs {
  Arguments of;
  const ns_tmap *queries;        // boxes of 64 columns, a group's heads, and as many positions as make 64 rows; or null
  const ns_tmap *keys, *values;  // boxes of a page's rows and 64 columns
  // For each block of the grid where its tasks begin behind these numbers, and where the last one's end; then the tasks:
  // tile * kv_heads + key head.
  const int* order;
};

// A block's tasks.
struct Tasks {
  const int* at;
  int count;
};

NS_DEV Tasks tasks(const Inputs& in) {
  const int first = in.order[blockIdx.x];
  return Tasks{in.order + gridDim.x + 1 + first, in.order[blockIdx.x + 1] - first};
}

NS_DEV Tile find(const Inputs& in, int task) { return attention_rows::find(in.of, task / in.of.kv_heads, task % in.of.kv_heads); }

// What those who fetch queries tell those who compute.
struct Record {
  Tile tile;
  int last;
};

// Shared memory, in bytes: queries, stages of keys and of values, all in blocks of 64 columns; what splits are folded into.
template <int D>
NS_DEV u32 keys_at(u32 base, int stage) { return base + (ROWS + stage * BLOCK) * D * 2; }
template <int D>
NS_DEV u32 values_at(u32 base, int stage) { return keys_at<D>(base, STAGES + stage); }

// Barriers, each two: "has been filled", and "has been read" by the warps that compute. Of a stage of keys and one of values;
// of each warpgroup's queries, with which its tile is written down.
struct Barriers {
  u32 at;
  Record* records;  // [2][RECORDS]
};
enum { BARRIERS = 4 * STAGES + 4 };
NS_DEV u32 full(const Barriers& b, int which, int stage) { return b.at + 8 * (which * STAGES + stage); }
NS_DEV u32 empty(const Barriers& b, int which, int stage) { return b.at + 8 * ((2 + which) * STAGES + stage); }
NS_DEV u32 asked(const Barriers& b, int half) { return b.at + 8 * (4 * STAGES + half); }
NS_DEV u32 scored(const Barriers& b, int half) { return b.at + 8 * (4 * STAGES + 2 + half); }

// The warp that fetches. All pages but a sequence's last are full of what is finite; of that one, the values behind the last key
// repeat it. For a page that the sequence has not got, its last one comes again.
template <int D>
NS_DEV void fetch(const Inputs& in, u32 base, Barriers bars) {
  const int lane = threadIdx.x & 31;
  const Tasks all = tasks(in);
  int turn = 0;
  Tile next = find(in, all.at[0]);
  for (int n = 0; n < all.count; n++) {
    const Tile t = next;
    if (n + 1 < all.count) next = find(in, all.at[n + 1]);
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

// The warp that fetches the queries of warpgroup `half`, and writes down of which tile. Where a group's heads divide 64 rows,
// TMA brings them; rows behind the sequence's are whatever is there.
template <int D>
NS_DEV void ask(const Inputs& in, u32 queries, const Barriers& bars, int half) {
  const int lane = threadIdx.x & 31;
  const Tasks all = tasks(in);
  Tile next = find(in, all.at[0]);
  for (int n = 0; n < all.count; n++) {
    const Tile t = next;
    if (n + 1 < all.count) next = find(in, all.at[n + 1]);
    const int first = t.first + half * 64, head = t.kv_head * t.group;
    ns_mbar_wait(scored(bars, half), (n & 1) ^ 1);
    if (lane == 0) bars.records[half * RECORDS + n % RECORDS] = Record{t, n + 1 == all.count};
    if (in.queries) {
      if (lane == 0) {
        ns_mbar_expect(asked(bars, half), 64 * D * 2 - NS_PLANTED(234) * 16);
        for (int c = 0; c < D / 64; c++)
          ns_tma3d(queries + c * ROWS * SWIZZLED, in.queries, c * 64, head, t.row0 + first / t.group, asked(bars, half));
        for (int c = 0; c < D / 64; c++)
          ns_tma3d_ask(in.queries, c * 64, next.kv_head * next.group, next.row0 + (next.first + half * 64) / t.group);
      }
      continue;
    }
    for (int c = lane; c < 64 * D / 8; c += 32) {
      const int row = c / (D / 8), chunk = c % (D / 8);
      ns_cp16(queries + ((chunk >> 3) * ROWS + row) * SWIZZLED + (((chunk & 7) ^ (row & 7)) << 4),
              in.of.q + place<D>(t, first + row, in.of.q_ld) + chunk * 8);
    }
    ns_cp_commit();
    ns_cp_wait<NS_PLANTED(235)>();
    ns_fence_async();
    ns_syncwarp();
    if (lane == 0) ns_mbar_arrive(asked(bars, half));
  }
}

// scores = queries . keys^T, begun.
template <int D>
NS_DEV void begin_scores(float (&scores)[64], u32 queries, u32 keys) {
  const u64 left = ns_desc(queries), right = ns_desc(keys);
#pragma unroll
  for (int k = 0; k < D / 16; k++) {
    const u32 in_row = (k & 3) * 32 >> NS_PLANTED(231);
    ns_wgmma_n128(scores, ns_desc_at(left, (k >> 2) * ROWS * SWIZZLED + in_row),
                  ns_desc_at(right, (k >> 2) * BLOCK * SWIZZLED + in_row), k > 0);
  }
  ns_wg_commit();
}

// out += p . values, begun.
template <int D>
NS_DEV void begin_outputs(float (&out)[D / 2], const u32 (&p)[8][4], u32 values) {
  const u64 right = ns_desc_down(values, NS_KV_PAGE * SWIZZLED);
#pragma unroll
  for (int k = 0; k < 8; k++) {
    const u64 rows = ns_desc_at(right, ((k >> 2) * D + (k & 3) * 16) * SWIZZLED);
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
NS_DEV void compute(const Inputs& in, u32 base, f32x4* totals, const Barriers& bars, int half) {
  const int row = (threadIdx.x / 32 - 4) * 16;
  const u32 queries = base + half * 64 * SWIZZLED;
  const float scale = in.of.scale;
  const auto wait = [&](int which, int turn) { ns_mbar_wait(full(bars, which, turn % STAGES), turn / STAGES & 1); };
  const auto leave = [&](u32 bar) {
    ns_syncwarp();
    if ((threadIdx.x & 31) == 0) ns_mbar_arrive(bar);
  };
  totals += threadIdx.x - 128;
  float s[16][4], offset[2], by[2];
  u32 p[8][4];  // as long as a product reads it, it stays as it is
  Sums<D> a;
  Mine m;
  auto& scores = reinterpret_cast<float(&)[64]>(s);
  auto& out = reinterpret_cast<float(&)[D / 2]>(a.out);
  int n = 0, block = 0, blocks = 0;  // the tile's number, the block of keys that is scored, and how many there are
  bool last = false;                 // whether it is the last tile
  const auto begin_tile = [&] {
    ns_mbar_wait(asked(bars, half), n & 1);
    const Record& r = bars.records[half * RECORDS + n % RECORDS];
    m = mine(r.tile, r.tile.first + row);
    blocks = r.tile.blocks;
    last = r.last;
    block = 0;
  };
  const auto end_scores = [&](int turn) {
    leave(empty(bars, 0, turn % STAGES));
    if (block == blocks - 1) leave(scored(bars, half));
  };
  if (half == 1) ns_bar_arrive(TURN, 256);
  begin_tile();
  start(a);
  wait(0, 0);
  ns_wg_fence();
  begin_scores<D>(scores, queries, keys_at<D>(base, 0));
  ns_wg_wait<NS_PLANTED(232)>();
  ns_wg_hold(scores);
  end_scores(0);
  refer(a.max, s, m, 0, scale, offset, by);
  weigh(s, scale, offset);
  add_sums(a.sum, s, by);
  round_weights(p, s);

  bool folded = false, more = true;
  for (int turn = 0; more; turn++) {
    const bool ends = ends_split(block, blocks), ends_tile = block == blocks - 1;
    block++;
    if (ends_tile) {
      n++;
      more = !last;
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
    if (more) end_scores(turn + 1);
    Fold fold[2];
    if (ends) {
#pragma unroll
      for (int h = 0; h < 2; h++) fold[h] = fold_split(a.total_max[h], a.total_sum[h], a.max[h], row_sum(a.sum[h]));
      start_split(a.max, a.sum);
    }
    refer(a.max, s, m, block * BLOCK, scale, offset, by);
    ns_wg_hold(scores);
    // Has long been so; a loop, so that the compiler leaves in front of the next wait what is in front of it here.
    wait(1, turn);
    ns_wg_wait<0>();
    ns_wg_hold(out);
    leave(empty(bars, 1, turn % STAGES));
    weigh(s, scale, offset);
    add_sums(a.sum, s, by);
    ns_wg_hold(a.sum);
    ns_syncwarp();
    round_weights(p, s);
    if (ends) {
      if (folded) fold_outputs(a, totals, fold);
      folded = !ends_tile;
      if (ends_tile) {
        const Tile& t = bars.records[half * RECORDS + (n - 1) % RECORDS].tile;
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
  NS_SHARED(u64, barriers, [BARRIERS]);
  NS_SHARED(Record, records, [2 * RECORDS]);
  const Barriers bars = {ns_smem(barriers), records};
  const u32 base = ns_smem(memory);
  if (threadIdx.x == 0) {
    for (int which = 0; which < 2; which++) {
      for (int stage = 0; stage < STAGES; stage++) {
        ns_mbar_init(full(bars, which, stage), 1);
        ns_mbar_init(empty(bars, which, stage), 8);
      }
      ns_mbar_init(asked(bars, which), 1);
      ns_mbar_init(scored(bars, which), 4);
    }
    ns_fence_async();
  }
  __syncthreads();
  const int warp = (int)ns_shfl_u32(threadIdx.x / 32, 0);
  if (warp < 4) {
    ns_regs_dec<FETCH_REGISTERS>();
    if (warp == 0) fetch<D>(in, base, bars);
    else if (warp < 3) ask<D>(in, base + (warp - 1) * 64 * SWIZZLED, bars, warp - 1);
  } else {
    ns_regs_inc<COMPUTE_REGISTERS>();
    compute<D>(in, base, (f32x4*)(memory + (ROWS + 2 * STAGES * BLOCK) * D * 2), bars, warp / 4 - 1);
  }
}

}  // namespace attention_wgmma

// 384 threads, and no block without a task.
#define NS_ATTENTION_WGMMA(NAME, D)                                                                                          \
  NS_KERNEL void __launch_bounds__(384, 1) NAME(                                                                             \
      const bf16_t* NS_RESTRICT q, const __grid_constant__ ns_tmap queries, const __grid_constant__ ns_tmap keys,            \
      const __grid_constant__ ns_tmap values_map, const bf16_t* NS_RESTRICT values, const int* NS_RESTRICT pages,            \
      const int* NS_RESTRICT tiles, const int* NS_RESTRICT sequences, bf16_t* NS_RESTRICT out, float* NS_RESTRICT lse,       \
      int heads, int kv_heads, int pages_ld, int q_ld, int out_ld, float scale, const int* NS_RESTRICT order, int by_tma) {                     \
    attention_wgmma::forward<D>(attention_wgmma::Inputs{{q, nullptr, values, pages, tiles, sequences, out, lse, heads,       \
                                                         kv_heads, pages_ld, q_ld, out_ld, scale},                           \
                                                        by_tma ? &queries : nullptr, &keys, &values_map, order});            \
  }                                                                                                                          \
  NS_REGISTER(NAME);
NS_ATTENTION_WGMMA(attention_wgmma_d64, 64)
NS_ATTENTION_WGMMA(attention_wgmma_d128, 128)
#endif
