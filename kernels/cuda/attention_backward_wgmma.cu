// The gradients of attention_backward.cu on Hopper, for heads of 128 (sm_90a only), in one pass over pairs of 128 keys and 64 rows: scores
// and the gradients of weights are computed once. Every sum has one order: no two blocks add to one place at a time.
//
// A block has 128 keys of one key head and walks over all (position, head of the group) that see them: tiles of 64 positions, the last
// first, heads ascending in each. dk and dv stay in its registers. What it adds to a tile's dq it adds when the block of the keys
// before has: `turns` says how many blocks have. All blocks take the same way through the tiles, so nobody waits long, and the one that is
// waited for has a lower index.
// One warpgroup fetches (two warps) and adds dq (one); two have 64 keys each: they multiply transposed (a lane's fragment of p^T
// is the left operand of the next product), and share ds for dq, of which each has 64 columns, one step late.
// Start at `pass`.
#include "device.cuh"
#include "attention.cuh"

#if defined(__CUDA_ARCH_FEAT_SM90_ALL) || defined(NS_EMU)

namespace attention_backward_wgmma {
using namespace attention;

enum { D = 128, KEYS = 128, ROWS = 64, STAGES = 2, SWIZZLED = 128, FETCHING = ROWS, DQ_COLUMNS = 32 };

// Shared memory, in bytes: keys, values, the stages' queries and dout, ds twice, dq, the stages' lse and delta, barriers, the
// block's task.
constexpr u32 KEY_BYTES = KEYS * D * 2, ROW_BYTES = ROWS * D * 2, DS_BYTES = KEYS * ROWS * 2, DQ_BYTES = ROWS * D * 4;
constexpr u32 STAGES_AT = 2 * KEY_BYTES, DS_AT = STAGES_AT + STAGES * 2 * ROW_BYTES, DQ_AT = DS_AT + 2 * DS_BYTES;
constexpr u32 MARKS_AT = DQ_AT + DQ_BYTES, BARRIERS_AT = MARKS_AT + STAGES * 2 * ROWS * 4;
constexpr u32 TASK_AT = BARRIERS_AT + (2 * STAGES + 4) * 8;

// Bytes from the start of a tile of N rows, in blocks of 64 columns, to 16-byte chunk `chunk` of `row`.
template <int N>
NS_DEV u32 block_at(int row, int chunk) {
  return (u32)(((chunk >> 3) * N + row) * SWIZZLED + (((chunk & 7) ^ (row & 7)) << 4));
}

// The same in dq: blocks of DQ_COLUMNS columns.
NS_DEV u32 dq_at(int row, int chunk) { return block_at<ROWS>(row, chunk); }

// As in attention_backward.cu; q and dout in tiles of 64 rows and 64 columns, dqkv in tiles of 64 rows and DQ_COLUMNS columns, too.
struct Arguments {
  const ns_tmap *q_map, *dout_map, *dq_map;
  const bf16_t *q, *keys, *values, *dout;
  const float *lse, *delta;
  const int *pages, *tasks, *sequences;
  float *dqkv, *dbefore;
  int* turns;
  int heads, kv_heads, pages_ld, q_ld, dqkv_ld;
  float scale, inverse_sqrt_d;
};

struct Task {
  const int* pages;    // of the sequence
  int row0, start;     // the sequence's first row, and its position
  int length;          // positions, and keys
  int group, kv_head;
  int key0, block;     // the first key, and which 128 they are
  int last, steps;     // the last tile of 64 positions; (tile, head) in all
};

NS_DEV Task find(const Arguments& in) {
  const int* task = in.tasks + 3 * blockIdx.x;
  const int* sequence = in.sequences + 4 * task[0];
  Task t;
  t.group = in.heads / in.kv_heads;
  t.kv_head = blockIdx.y;
  t.row0 = sequence[0];
  t.start = sequence[2];
  t.length = t.start + sequence[1];
  t.pages = in.pages + (long)sequence[3] * in.pages_ld;
  t.key0 = task[1] * NS_KV_PAGE;
  t.block = t.key0 / KEYS;
  t.last = (t.length - 1) / ROWS;
  t.steps = (t.last + 1 - (t.key0 > t.start ? t.key0 : t.start) / ROWS) * t.group;
  return t;
}

// A step: the tile from `position` on, and a head of the group.
struct Step {
  int position, head;
};
NS_DEV Step first_step(const Task& t) { return Step{t.last * ROWS, 0}; }
NS_DEV void advance(Step& s, const Task& t) {
  if (++s.head < t.group) return;
  s.head = 0;
  s.position -= ROWS;
}

// Barriers: of stages "has been filled" (by the warps that fetch, and once more for the tile), "has been read" (by the 8 that compute); of ds "has been written, and
// the other one read" (8); of dq "has been written" (8), "has been read" (1).
struct Barriers {
  u32 full, empty, ds, dq_full, dq_empty;
};

// A tile's queries and dout, by TMA where all of its rows are the sequence's; otherwise the others' are zeros, with the weight 2^-inf.
NS_DEV void fetch_rows(const Arguments& in, const Task& t, u32 to, u32 full, float* marks, Step s) {
  const int row = threadIdx.x, head = t.kv_head * t.group + s.head;
  const int from = t.start - s.position, end = t.length - s.position - NS_PLANTED(245);  // rows that are the sequence's
  const bool valid = row >= from && row < end;
  const long at = t.row0 + (valid ? row - from : 0);  // the thread's row, in q
  if (from <= 0 && end >= ROWS) {
    if (row == 0) {
      ns_mbar_expect(full, 2 * ROW_BYTES - NS_PLANTED(247) * 16);
#pragma unroll
      for (int b = 0; b < D / 64; b++) {
        ns_tma2d(to + b * ROWS * SWIZZLED, in.q_map, head * D + b * 64, (int)at, full);
        ns_tma2d(to + ROW_BYTES + b * ROWS * SWIZZLED, in.dout_map, head * D + b * 64, (int)at, full);
      }
    }
  } else {
    const bf16_t *q = in.q + at * in.q_ld + head * D, *dout = in.dout + (at * in.heads + head) * D;
#pragma unroll 1
    for (int chunk = 0; chunk < D / 8; chunk++, q += 8, dout += 8) {
      ns_cp16z(to + block_at<ROWS>(row, chunk), q, valid);
      ns_cp16z(to + ROW_BYTES + block_at<ROWS>(row, chunk), dout, valid);
    }
    ns_cp_commit();
    ns_cp_wait<0>();
    ns_fence_async();
    ns_syncwarp();
    if (row == 0) ns_mbar_arrive(full);
  }
  marks[row] = valid ? in.lse[at * in.heads + head] : -minus_infinity();
  marks[ROWS + row] = valid ? in.delta[at * in.heads + head] : 0.0f;
  ns_syncwarp();
  if ((row & 31) == 0) ns_mbar_arrive(full);
}

NS_DEV void fetch(const Arguments& in, const Task& t, u32 base, float* marks, Barriers bars) {
#pragma unroll 2
  for (int c = threadIdx.x; c < KEYS * D / 8; c += FETCHING) {
    const int row = c / (D / 8), chunk = c % (D / 8);
    const int valid = t.key0 + row < t.length, key = valid ? t.key0 + row : t.key0;
    const long at = ns_kv_row(t.pages, key, in.kv_heads, t.kv_head, D) + chunk * 8;
    ns_cp16z(base + block_at<KEYS>(row, chunk), in.keys + at, valid);
    ns_cp16z(base + KEY_BYTES + block_at<KEYS>(row, chunk), in.values + at, valid);
  }
  ns_cp_commit();
  ns_cp_wait<0>();
  ns_fence_async();
  Step s = first_step(t);
  for (int i = 0; i < t.steps; i++, advance(s, t)) {
    const int stage = i % STAGES;
    ns_mbar_wait(bars.empty + 8 * stage, (i / STAGES & 1) ^ 1);
    fetch_rows(in, t, base + STAGES_AT + stage * 2 * ROW_BYTES, bars.full + 8 * stage, marks + stage * 2 * ROWS, s);
  }
}

// One warp: adds each step's dq when it is this block's turn, by TMA where all of the tile's rows are the sequence's. The first block of
// keys writes.
NS_DEV void add_dq(const Arguments& in, const Task& t, u32 base, const unsigned char* dq, Barriers bars) {
  const int lane = threadIdx.x & 31;
  Step s = first_step(t);
  for (int i = 0; i < t.steps; i++, advance(s, t)) {
    const int head = t.kv_head * t.group + s.head, row0 = t.row0 + s.position - t.start;
    int* turn = in.turns + (long)(s.position > t.start ? row0 : t.row0) * in.heads + head;
    ns_mbar_wait(bars.dq_full, i & 1);
    if (t.block > 0 && lane == 0) ns_turn_wait(turn, t.block - NS_PLANTED(240));
    ns_syncwarp();
    if (s.position >= t.start && s.position + ROWS <= t.length) {
      if (lane == 0) {
        for (int b = 0; b < D / DQ_COLUMNS; b++) {
          const u32 from = base + DQ_AT + b * ROWS * SWIZZLED;
          if (t.block == 0)
            ns_tma2d_store(in.dq_map, head * D + b * DQ_COLUMNS, row0, from);
          else
            ns_tma2d_add(in.dq_map, head * D + b * DQ_COLUMNS, row0, from);
        }
        ns_bulk_commit();
        ns_bulk_wait_read();
        ns_mbar_arrive(bars.dq_empty);
        if (!NS_PLANTED(241)) ns_bulk_wait();
      }
    } else {
#pragma unroll 1
      for (int row = 0; row < ROWS; row++) {
        if (s.position + row < t.start || s.position + row >= t.length) continue;
        float* to = in.dqkv + (long)(row0 + row) * in.dqkv_ld + head * D + lane * 4;
        const f32x4 v = *(const f32x4*)(dq + dq_at(row, lane));
        if (t.block == 0)
          *(f32x4*)to = v;
        else
          ns_add4(to, v);
      }
      ns_turn_fence();
      ns_syncwarp();
      if (lane == 0) ns_mbar_arrive(bars.dq_empty);
    }
    if (lane == 0) ns_turn_pass(turn, t.block + 1);
  }
}

// A product of a warpgroup's 64 keys with a tile's 64 rows, begun: d = left . right^T.
NS_DEV void begin_scores(float (&d)[32], u32 left, u32 right) {
#pragma unroll
  for (int k = 0; k < D / 16; k++) {
    const u32 in_row = (k & 3) * 32;
    const u64 a = ns_desc(left + (k >> 2) * KEYS * SWIZZLED + in_row), b = ns_desc(right + (k >> 2) * ROWS * SWIZZLED + in_row);
    if (k == 0) ns_wgmma_first_n64(d, a, b);
    else ns_wgmma_n64(d, a, b, 1);
  }
  ns_wg_commit();
}

// d += left . rows, begun.
NS_DEV void begin_sums(float (&d)[64], const u32 (&left)[4][4], u32 rows) {
#pragma unroll
  for (int k = 0; k < ROWS / 16; k++) ns_wgmma_left_n128(d, left[k], ns_desc_down(rows + k * 16 * SWIZZLED, ROWS * SWIZZLED));
  ns_wg_commit();
}

// dq = ds . keys over all keys, 64 of its columns, begun.
NS_DEV void begin_dq(float (&d)[32], u32 ds, u32 keys) {
#pragma unroll
  for (int k = 0; k < KEYS / 16; k++) {
    const u64 a = ns_desc_down(ds + (k * 16 * SWIZZLED >> NS_PLANTED(244)), DS_BYTES), b = ns_desc_down(keys + k * 16 * SWIZZLED, KEYS * SWIZZLED);
    if (k == 0) ns_wgmma_first_down_n64(d, a, b);
    else ns_wgmma_down_n64(d, a, b);
  }
  ns_wg_commit();
}

NS_DEV void hold(u32 (&p)[4][4]) {
#pragma unroll
  for (int k = 0; k < 4; k++) ns_wg_hold(p[k]);
}

NS_DEV void round(u32 (&p)[4][4], const float (&s)[8][4]) {
#pragma unroll
  for (int n = 0; n < 8; n++)
#pragma unroll
    for (int h = 0; h < 2; h++) p[n / 2][n % 2 * 2 + h] = ns_pack(s[n][2 * h], s[n][2 * h + 1]);
}

// Scores become weights. Key k of the lane's two sees rows of the tile from `from[k]` on.
NS_DEV void weigh(float (&s)[8][4], const float* lse, bool masked, const int (&from)[2], float scale) {
  const int column = (threadIdx.x & 3) * 2;
#pragma unroll
  for (int n = 0; n < 8; n++)
#pragma unroll
    for (int i = 0; i < 4; i++) s[n][i] = ns_ex2(ns_fma(s[n][i], scale, -lse[n * 8 + column + (i & 1)]));
  if (masked) {
#pragma unroll
    for (int n = 0; n < 8; n++)
#pragma unroll
      for (int i = 0; i < 4; i++)
        if (n * 8 + column + (i & 1) < from[i >> 1] - NS_PLANTED(246)) s[n][i] = 0.0f;
  }
}

NS_DEV void store_ds(unsigned char* ds, const u32 (&p)[4][4], int key) {
#pragma unroll
  for (int n = 0; n < 8; n++)
#pragma unroll
    for (int h = 0; h < 2; h++) *(u32*)(ds + block_at<KEYS>(key + 8 * h, n) + (threadIdx.x & 3) * 4) = p[n / 2][n % 2 * 2 + h];
}

// Of the lane's two rows of the tile, 64 columns from chunk `chunk`.
NS_DEV void store_dq(unsigned char* to, const float (&dq)[8][4], int row, int chunk, float scale) {
  const int lane = threadIdx.x & 3;
#pragma unroll
  for (int n = 0; n < 8; n++)
#pragma unroll
    for (int h = 0; h < 2; h++)
      *(u32x2*)(to + dq_at(row + 8 * h, chunk + 2 * n + (lane >> 1)) + (lane & 1) * 8) =
          u32x2{ns_f2u(dq[n][2 * h] * scale), ns_f2u(dq[n][2 * h + 1] * scale)};
}

// Of key heads when `values` is 0, of value heads when it is 1.
NS_DEV void store_sums(const Arguments& in, const Task& t, int values, const float (&sums)[16][4], int key, float scale) {
#pragma unroll
  for (int h = 0; h < 2; h++) {
    const int k = key + 8 * h;
    if (k >= t.length) continue;
    float* row = (k < t.start ? in.dbefore + (long)(in.tasks[3 * blockIdx.x + 2] + k) * 2 * in.kv_heads * D
                              : in.dqkv + (long)(t.row0 + k - t.start) * in.dqkv_ld + in.heads * D) +
                 (values * in.kv_heads + t.kv_head) * D + (threadIdx.x & 3) * 2;
#pragma unroll
    for (int n = 0; n < 16; n++)
      *(u32x2*)(row + n * 8) = u32x2{ns_f2u(sums[n][2 * h] * scale), ns_f2u(sums[n][2 * h + 1] * scale)};
  }
}

// Warpgroup `half` of the two that compute. In flight when a step begins: the step before's product for dk, then its own scores.
NS_DEV void compute(const Arguments& in, const Task& t, u32 base, unsigned char* memory, Barriers bars, int half) {
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5 & 3;
  const int key = half * 64 + warp * 16 + (lane >> 2);  // of the block: the lane's first, the other is 8 behind
  const u32 keys = base + half * 64 * SWIZZLED, values = keys + KEY_BYTES;
  const float* marks = (const float*)(memory + MARKS_AT);
  const auto rows = [&](int i) { return base + STAGES_AT + i % STAGES * 2 * ROW_BYTES; };
  const auto arrive = [&](u32 bar) {
    ns_syncwarp();
    if (lane == 0) ns_mbar_arrive(bar);
  };
  float s[8][4], dp[8][4], dq[8][4], dk[16][4], dv[16][4];
  u32 p[4][4], ds[4][4];
  auto& flat_s = reinterpret_cast<float(&)[32]>(s);
  auto& flat_dp = reinterpret_cast<float(&)[32]>(dp);
  auto& flat_dq = reinterpret_cast<float(&)[32]>(dq);
  auto& flat_dk = reinterpret_cast<float(&)[64]>(dk);
  auto& flat_dv = reinterpret_cast<float(&)[64]>(dv);
  clear(dk);
  clear(dv);
  const auto write_dq = [&](int i) {
    ns_mbar_wait(bars.dq_empty, (i & 1) ^ 1);
    store_dq(memory + DQ_AT, dq, warp * 16 + (lane >> 2), half * 16, in.inverse_sqrt_d);
    ns_fence_async();
    arrive(bars.dq_full);
  };
  ns_wg_hold(flat_dk);
  ns_wg_hold(flat_dv);
  ns_mbar_wait(bars.full, 0);
  ns_wg_fence();
  begin_scores(flat_s, keys, rows(0));
  Step step = first_step(t);
  int i = 0;
  do {
    const float* const mark = marks + i % STAGES * 2 * ROWS;
    ns_wg_fence();
    begin_scores(flat_dp, values, rows(i) + ROW_BYTES);
    // For both: ptxas serializes what is waited for one by one behind the loop's end.
    ns_wg_wait<0>();
    ns_wg_hold(flat_s);
    ns_wg_hold(flat_dp);
    ns_wg_hold(flat_dk);
    if (i > 0) arrive(bars.empty + 8 * ((i - 1) % STAGES));
    const int from[2] = {t.key0 + key - step.position, t.key0 + key + 8 - step.position};
    weigh(s, mark, step.position < t.key0 + KEYS, from, in.scale);
    advance(step, t);
    round(p, s);
    hold(p);
    ns_wg_hold(flat_dv);
    ns_wg_fence();
    begin_sums(flat_dv, p, rows(i) + ROW_BYTES);
#pragma unroll
    for (int n = 0; n < 8; n++)
#pragma unroll
      for (int j = 0; j < 4; j++) dp[n][j] = s[n][j] * (dp[n][j] - mark[ROWS + n * 8 + (lane & 3) * 2 + (j & 1)]);
    round(ds, dp);
    // The step before's are all written, and those of two steps before all read. Before the first there are none, and the product is not used.
    ns_mbar_wait(bars.ds + 8 * ((i + 1) & 1), ((i - 1) >> 1 & 1) ^ NS_PLANTED(242));
    store_ds(memory + DS_AT + (i & 1) * DS_BYTES, ds, key);
    ns_fence_async();
    hold(ds);
    ns_wg_hold(flat_dk);
    ns_wg_fence();
    begin_dq(flat_dq, base + DS_AT + ((i + 1) & 1) * DS_BYTES, base + half * KEYS * SWIZZLED);
    begin_sums(flat_dk, ds, rows(i));
    ns_wg_wait<2>();
    ns_wg_hold(flat_dv);
    hold(p);
    // Behind the last step its own rows, once more, for nothing.
    const int next = i + 1 < t.steps ? i + 1 : i;
    ns_mbar_wait(bars.full + 8 * (next % STAGES), next / STAGES & 1);
    ns_wg_fence();
    begin_scores(flat_s, keys, rows(next));
    ns_wg_wait<2 + NS_PLANTED(243)>();
    ns_wg_hold(flat_dq);
    arrive(bars.ds + 8 * (i & 1));
    if (i > 0) write_dq(i - 1);
  } while (++i < t.steps);
  ns_wg_wait<0>();
  ns_wg_hold(flat_dk);
  ns_wg_hold(flat_s);
  hold(ds);
  const int last = t.steps - 1;
  ns_mbar_wait(bars.ds + 8 * (last & 1), last >> 1 & 1);
  ns_wg_fence();
  begin_dq(flat_dq, base + DS_AT + (last & 1) * DS_BYTES, base + half * KEYS * SWIZZLED);
  store_sums(in, t, 0, dk, t.key0 + key, in.inverse_sqrt_d);
  store_sums(in, t, 1, dv, t.key0 + key, 1.0f);
  ns_wg_wait<0>();
  ns_wg_hold(flat_dq);
  write_dq(last);
}

// tasks: (block of the grid: 3) sequence, its page, an even one, its first row in dbefore · grid: (tasks, kv_heads).
NS_DEV void pass(const Arguments& in) {
  NS_DYN_SMEM(memory);
  const u32 base = ns_smem(memory), bar = base + BARRIERS_AT;
  const Barriers bars = {bar, bar + 8 * STAGES, bar + 16 * STAGES, bar + 16 * STAGES + 16, bar + 16 * STAGES + 24};
  if (threadIdx.x == 0) {
    for (int stage = 0; stage < STAGES; stage++) {
      ns_mbar_init(bars.full + 8 * stage, FETCHING / 32 + 1);
      ns_mbar_init(bars.empty + 8 * stage, 8);
    }
    ns_mbar_init(bars.ds, 8);
    ns_mbar_init(bars.ds + 8, 8);
    ns_mbar_init(bars.dq_full, 8);
    ns_mbar_init(bars.dq_empty, 1);
    ns_fence_async();
    *(Task*)(memory + TASK_AT) = find(in);
  }
  __syncthreads();
  // In shared memory, because those who fetch have 24 registers.
  const Task& t = *(const Task*)(memory + TASK_AT);
  if (threadIdx.x < 128) {
    ns_regs_dec<24>();
    if (threadIdx.x < FETCHING)
      fetch(in, t, base, (float*)(memory + MARKS_AT), bars);
    else if (threadIdx.x < FETCHING + 32)
      add_dq(in, t, base, memory + DQ_AT, bars);
  } else {
    ns_regs_inc<240>();
    compute(in, t, base, memory, bars, (int)ns_shfl_u32(threadIdx.x / 128, 0) - 1);
  }
}

}  // namespace attention_backward_wgmma

NS_KERNEL void __launch_bounds__(384, 1) attention_backward_wgmma_d128(
    const __grid_constant__ ns_tmap q_map, const __grid_constant__ ns_tmap dout_map, const __grid_constant__ ns_tmap dq_map,
    const bf16_t* NS_RESTRICT q, const bf16_t* NS_RESTRICT keys, const bf16_t* NS_RESTRICT values, const bf16_t* NS_RESTRICT dout,
    const float* NS_RESTRICT lse, const float* NS_RESTRICT delta, const int* NS_RESTRICT pages, const int* NS_RESTRICT tasks,
    const int* NS_RESTRICT sequences, float* dqkv, float* dbefore, int* turns, int heads, int kv_heads, int pages_ld, int q_ld, int dqkv_ld, float scale,
    float inverse_sqrt_d) {
  attention_backward_wgmma::pass(attention_backward_wgmma::Arguments{&q_map, &dout_map, &dq_map, q, keys, values, dout, lse, delta, pages, tasks, sequences, dqkv, dbefore, turns,
                                                                     heads, kv_heads, pages_ld, q_ld, dqkv_ld, scale, inverse_sqrt_d});
}
NS_REGISTER(attention_backward_wgmma_d128);
#endif
