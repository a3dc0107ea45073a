// Gradients of causal grouped-query attention by queries, keys and values. No atomics: every sum belongs to one warp and ascends.
//
// Weights are computed again from the scores and the log-sum-exp that the forward pass kept: p = 2^(score * scale - lse).
//   attention_prepare: dout rounded to bf16, and delta = sum of dout * out, for each (row, head)
//   attention_backward_q: dq = 1/sqrt(D) * sum over keys of p * (dout . v - delta) * k
//   attention_hand_back: what later rows add to the gradients of a row's key and value
//   attention_backward_kv: dv = sum over rows of p * dout, dk = 1/sqrt(D) * sum over rows of p * (dout . v - delta) * q
// Rows mean (position, head of the group) flattened, position major. Every sum is one f32 accumulator of the tensor core that
// takes in 16 keys (or rows) a step, ascending; p and its gradient are rounded once to bf16. A row's gradients depend on its
// sequence only. Dao et al. 2022, algorithm 4, with one pass over queries and one over keys.
#include "device.cuh"
#include "attention.cuh"

namespace attention_backward {
using namespace attention;

// Where one sequence is: first row in q, out and their gradients; rows times heads of the group; position of the first row; its row of
// the page table.
struct Sequence {
  int row0, rows, start;
  const int* pages;
};

NS_DEV Sequence find(const int* sequences, const int* pages, int pages_ld, int i, int group) {
  const int* at = sequences + 4 * i;
  return Sequence{at[0], at[1] * group, at[2], pages + (long)at[3] * pages_ld};
}

// Copies N flattened rows from `first` of the heads of one group: `from` is (row, ld), heads first. Rows behind the last repeat it.
template <int D, int N, int THREADS>
NS_DEV void load_rows(u32 to, const bf16_t* from, int ld, const Sequence& s, int group, int kv_head, int first) {
#pragma unroll
  for (int i = 0; i < N * D / 8 / THREADS; i++) {
    const int c = threadIdx.x + i * THREADS, row = c / (D / 8), chunk = c % (D / 8);
    const int r = first + row < s.rows ? first + row : s.rows - 1;
    ns_cp16(to + tile_at<D>(row, chunk), from + (long)(s.row0 + r / group) * ld + (kv_head * group + r % group) * D + chunk * 8);
  }
}

// The place of a flattened row in (row, head).
NS_DEV long mark_at(const Sequence& s, int group, int heads, int kv_head, int r) {
  if (r >= s.rows) r = s.rows - 1;
  return (long)(s.row0 + r / group) * heads + kv_head * group + r % group;
}

// A warp for each (row, head), four of them a block: grid (rows * heads / 4, rounded up). 16 D bytes of dout are read once.
template <int D>
NS_DEV void prepare(const float* NS_RESTRICT dout, const bf16_t* NS_RESTRICT out, bf16_t* NS_RESTRICT rounded,
                    float* NS_RESTRICT delta, int count, int heads, int out_ld) {
  const int lane = threadIdx.x & 31, i = blockIdx.x * 4 + (threadIdx.x >> 5);
  if (i >= count) return;
  const int row = i / heads, head = i % heads;
  const long at = (long)i * D + lane * 2;
  float sum = 0.0f;
#pragma unroll
  for (int c = 0; c < D; c += 64) {
    const u32 d = ns_pack(dout[at + c], dout[at + c + 1]);
    const u32 o = *(const u32*)(out + (long)row * out_ld + head * D + lane * 2 + c);
    *(u32*)(rounded + at + c) = d;
    sum = ns_fma(ns_bf2f((bf16_t)d), ns_bf2f((bf16_t)o), sum);
    sum = ns_fma(ns_bf2f((bf16_t)(d >> 16)), ns_bf2f((bf16_t)(o >> 16)), sum);
  }
#pragma unroll
  for (int m = 1; m < 32; m <<= 1) sum += ns_shfl_xor(sum, m);
  if (lane == 0) delta[i] = sum;
}

// What both passes read. q: rows of q_ld, heads first · dout: (row, head, D) · lse, delta: (row, head) · dqkv: rows of dqkv_ld:
// query heads, then key heads, then value heads; every element of these columns is written · dbefore: (position before a sequence's
// first row, one sequence after the other): key heads, then value heads · scale: log2(e) / sqrt(D).
struct Arguments {
  const bf16_t *q, *keys, *values, *dout;
  const float *lse, *delta;
  const int *pages, *tiles, *sequences;
  float *dqkv, *dbefore;
  int heads, kv_heads, pages_ld, q_ld, dqkv_ld;
  float scale, inverse_sqrt_d;
};

// ---- by queries: the tiles of the forward pass

enum { Q_ROWS = 128 };

// Shared memory, in bytes: queries, dout, then two stages of keys and values.
template <int D, int ROWS>
NS_DEV u32 q_keys_at(u32 base, int stage) { return base + (2 * ROWS + stage * 2 * NS_KV_PAGE) * D * 2; }

// One page of keys for a warp's 16 rows.
template <int D, int ROWS>
NS_DEV void add_page(float (&dq)[D / 8][4], u32 base, u32 keys, const int (&seen)[2], const float (&lse)[2],
                     const float (&delta)[2], float scale) {
  const int row = (threadIdx.x >> 5) * 16, column = (threadIdx.x & 3) * 2;
  float p[8][4], dp[8][4];
  dot<D>(p, base, row, keys, 0);
  dot<D>(dp, base + ROWS * D * 2, row, keys + NS_KV_PAGE * D * 2, 0);
#pragma unroll
  for (int n = 0; n < 8; n++)
#pragma unroll
    for (int i = 0; i < 4; i++) {
      const int h = i >> 1;
      const float weight = ns_exp2_low(ns_fma(p[n][i], scale, -lse[h]));
      dp[n][i] = n * 8 + column + (i & 1) < seen[h] ? weight * (dp[n][i] - delta[h]) : 0.0f;
    }
#pragma unroll
  for (int k = 0; k < 4; k++) {
    const u32 a[4] = {ns_pack(dp[2 * k][0], dp[2 * k][1]), ns_pack(dp[2 * k][2], dp[2 * k][3]),
                      ns_pack(dp[2 * k + 1][0], dp[2 * k + 1][1]), ns_pack(dp[2 * k + 1][2], dp[2 * k + 1][3])};
    add_16<D>(dq, a, keys, k * 16, 0);
  }
}

// tiles: (block of the grid: 2) sequence and its first flattened row · grid: (tiles, kv_heads, parts of a tile with ROWS rows each).
template <int D, int ROWS>
NS_DEV void by_queries(const Arguments& in) {
  NS_DYN_SMEM(memory);
  const u32 base = ns_smem(memory);
  const int warp = threadIdx.x >> 5, lane = threadIdx.x & 31;
  const int group = in.heads / in.kv_heads, kv_head = blockIdx.y;
  const Sequence s = find(in.sequences, in.pages, in.pages_ld, in.tiles[2 * blockIdx.x], group);
  const int first = in.tiles[2 * blockIdx.x + 1] + blockIdx.z * ROWS;
  if (first >= s.rows) return;
  const int length = s.start + ((first + ROWS < s.rows ? first + ROWS : s.rows) - 1) / group + 1;
  const int blocks = (length + NS_KV_PAGE - 1) / NS_KV_PAGE;

  const auto load = [&](int block) {
    const long at = ns_kv_tile(s.pages[block], in.kv_heads, kv_head, D);
    const u32 to = q_keys_at<D, ROWS>(base, block & 1);
    load_page<D, 2 * ROWS>(to, in.keys + at, length - block * NS_KV_PAGE);
    load_page<D, 2 * ROWS>(to + NS_KV_PAGE * D * 2, in.values + at, length - block * NS_KV_PAGE);
  };
  load_rows<D, ROWS, 2 * ROWS>(base, in.q, in.q_ld, s, group, kv_head, first);
  load_rows<D, ROWS, 2 * ROWS>(base + ROWS * D * 2, in.dout, in.heads * D, s, group, kv_head, first);
  load(0);
  ns_cp_commit();

  const int mine = first + warp * 16;  // this warp's first row
  const int reach = s.start + (mine + 15 < s.rows ? mine + 15 : s.rows - 1) / group;
  int position[2];
  float lse[2], delta[2];
#pragma unroll
  for (int h = 0; h < 2; h++) {
    const int r = mine + (lane >> 2) + 8 * h;
    const long at = mark_at(s, group, in.heads, kv_head, r);
    position[h] = s.start + r / group;
    lse[h] = in.lse[at];
    delta[h] = in.delta[at];
  }
  float dq[D / 8][4];
  clear(dq);
  ns_cp_wait<0>();
  __syncthreads();
  for (int block = 0; block < blocks; block++) {
    if (block + 1 < blocks) load(block + 1);
    ns_cp_commit();
    const int key = block * NS_KV_PAGE;
    if (mine < s.rows && key <= reach) {
      const int seen[2] = {position[0] + 1 - key, position[1] + 1 - key};
      add_page<D, ROWS>(dq, base, q_keys_at<D, ROWS>(base, block & 1), seen, lse, delta, in.scale);
    }
    ns_cp_wait<0>();
    if (!NS_PLANTED(220)) __syncthreads();
  }
#pragma unroll
  for (int h = 0; h < 2; h++) {
    const int r = mine + (lane >> 2) + 8 * h;
    if (r >= s.rows) continue;
    float* to = in.dqkv + (long)(s.row0 + r / group) * in.dqkv_ld + (kv_head * group + r % group) * D + (lane & 3) * 2;
#pragma unroll
    for (int n = 0; n < D / 8; n++) {
      to[n * 8] = dq[n][2 * h] * in.inverse_sqrt_d;
      to[n * 8 + 1] = dq[n][2 * h + 1] * in.inverse_sqrt_d;
    }
  }
}

// ---- by keys and values: a block for each page, 16 keys a warp

enum { K_WARPS = 4, K_THREADS = 32 * K_WARPS, K_ROWS = 32 };

// Shared memory, in bytes: keys, values, two stages of queries and dout, two of their lse and delta.
template <int D>
NS_DEV u32 k_rows_at(u32 base, int stage) { return base + (2 * NS_KV_PAGE + stage * 2 * K_ROWS) * D * 2; }

// K_ROWS rows for a warp's 16 keys; row c of them sees the keys below `seen(c)` of the page.
template <int D, class Seen>
NS_DEV void add_rows(float (&dk)[D / 8][4], float (&dv)[D / 8][4], u32 base, u32 rows, const float* marks, bool masked,
                     Seen seen, float scale) {
  const int warp = threadIdx.x >> 5, lane = threadIdx.x & 31;
  float p[K_ROWS / 8][4], dp[K_ROWS / 8][4];
  dot<D>(p, base, warp * 16, rows, 0);
  dot<D>(dp, base + NS_KV_PAGE * D * 2, warp * 16, rows + K_ROWS * D * 2, 0);
#pragma unroll
  for (int n = 0; n < K_ROWS / 8; n++)
#pragma unroll
    for (int i = 0; i < 4; i++) {
      const int c = n * 8 + (lane & 3) * 2 + (i & 1), key = warp * 16 + (lane >> 2) + 8 * (i >> 1);
      p[n][i] = ns_exp2_low(ns_fma(p[n][i], scale, -marks[c]));
      if (masked && key >= seen(c)) p[n][i] = 0.0f;
      dp[n][i] = p[n][i] * (dp[n][i] - marks[K_ROWS + c]);
    }
#pragma unroll
  for (int k = 0; k < K_ROWS / 16; k++) {
    const u32 a[4] = {ns_pack(p[2 * k][0], p[2 * k][1]), ns_pack(p[2 * k][2], p[2 * k][3]),
                      ns_pack(p[2 * k + 1][0], p[2 * k + 1][1]), ns_pack(p[2 * k + 1][2], p[2 * k + 1][3])};
    add_16<D>(dv, a, rows + K_ROWS * D * 2, k * 16, 0);
    const u32 b[4] = {ns_pack(dp[2 * k][0], dp[2 * k][1]), ns_pack(dp[2 * k][2], dp[2 * k][3]),
                      ns_pack(dp[2 * k + 1][0], dp[2 * k + 1][1]), ns_pack(dp[2 * k + 1][2], dp[2 * k + 1][3])};
    add_16<D>(dk, b, rows, k * 16, 0);
  }
}

// tiles: (block of the grid: 3) sequence, its page, its first row in dbefore · grid: (tiles, kv_heads).
template <int D>
NS_DEV void by_keys(const Arguments& in) {
  NS_DYN_SMEM(memory);
  const u32 base = ns_smem(memory);
  float* const marks = (float*)(memory + (2 * NS_KV_PAGE + 4 * K_ROWS) * D * 2);  // [stage][lse, delta][K_ROWS]
  const int warp = threadIdx.x >> 5, lane = threadIdx.x & 31;
  const int group = in.heads / in.kv_heads, kv_head = blockIdx.y;
  const int* task = in.tiles + 3 * blockIdx.x;
  const Sequence s = find(in.sequences, in.pages, in.pages_ld, task[0], group);
  const int page = task[1], key0 = page * NS_KV_PAGE, length = s.start + s.rows / group;
  const int first = ((key0 > s.start ? key0 - s.start : 0) + NS_PLANTED(222)) * group;  // of the rows that see a key of the page

  const auto load = [&](int row, int stage) {
    const u32 to = k_rows_at<D>(base, stage);
    load_rows<D, K_ROWS, K_THREADS>(to, in.q, in.q_ld, s, group, kv_head, row);
    load_rows<D, K_ROWS, K_THREADS>(to + K_ROWS * D * 2, in.dout, in.heads * D, s, group, kv_head, row);
  };
  // One of the next rows' lse and delta for each of the first 2 * K_ROWS threads.
  const auto mark = [&](int row) {
    const int t = threadIdx.x;
    return t < 2 * K_ROWS ? (t < K_ROWS ? in.lse : in.delta)[mark_at(s, group, in.heads, kv_head, row + t % K_ROWS)] : 0.0f;
  };
  const auto keep = [&](float value, int stage) {
    if (threadIdx.x < 2 * K_ROWS) marks[stage * 2 * K_ROWS + threadIdx.x] = value;
  };
  const long at = ns_kv_tile(s.pages[page], in.kv_heads, kv_head, D);
  load_page<D, K_THREADS>(base, in.keys + at, length - key0);
  load_page<D, K_THREADS>(base + NS_KV_PAGE * D * 2, in.values + at, length - key0);
  load(first, 0);
  ns_cp_commit();
  keep(mark(first), 0);
  ns_cp_wait<0>();
  __syncthreads();

  float dk[D / 8][4], dv[D / 8][4];
  clear(dk);
  clear(dv);
  for (int row = first, stage = 0; row < s.rows; row += K_ROWS, stage ^= 1) {
    float next = 0.0f;
    if (row + K_ROWS < s.rows) {
      load(row + K_ROWS, stage ^ 1);
      next = mark(row + K_ROWS);
    }
    ns_cp_commit();
    const bool masked = s.start + row / group < key0 + NS_KV_PAGE || row + K_ROWS > s.rows;
    const auto seen = [&](int c) { return row + c < s.rows ? s.start + (row + c) / group + 1 - key0 : 0; };
    add_rows<D>(dk, dv, base, k_rows_at<D>(base, stage), marks + stage * 2 * K_ROWS, masked, seen, in.scale);
    keep(next, stage ^ !NS_PLANTED(223));
    ns_cp_wait<0>();
    if (!NS_PLANTED(221)) __syncthreads();
  }
#pragma unroll
  for (int h = 0; h < 2; h++) {
    const int key = key0 + warp * 16 + (lane >> 2) + 8 * h;
    if (key >= length) continue;
    float* to = (key < s.start ? in.dbefore + (long)(task[2] + key) * 2 * in.kv_heads * D
                               : in.dqkv + (long)(s.row0 + key - s.start) * in.dqkv_ld + in.heads * D) +
                kv_head * D + (lane & 3) * 2;
#pragma unroll
    for (int n = 0; n < D / 8; n++)
#pragma unroll
      for (int i = 0; i < 2; i++) {
        to[n * 8 + i] = dk[n][2 * h + i] * in.inverse_sqrt_d;
        to[in.kv_heads * D + n * 8 + i] = dv[n][2 * h + i];
      }
  }
}

}  // namespace attention_backward

// to: rows of ld, += before: rows of `columns`, a multiple of 4; both on 16 bytes · grid: (rows).
NS_KERNEL void __launch_bounds__(128) attention_hand_back(float* NS_RESTRICT to, const float* NS_RESTRICT before, int columns, int ld) {
  for (int c = threadIdx.x * 4; c < columns; c += 512) {
    f32x4* at = (f32x4*)(to + (long)blockIdx.x * ld + c);
    const f32x4 old = *at, add = *(const f32x4*)(before + (long)blockIdx.x * columns + c);
    *at = f32x4{old.x + add.x, old.y + add.y, old.z + add.z, old.w + add.w};
  }
}
NS_REGISTER(attention_hand_back);

#define NS_ATTENTION_PASS(NAME, THREADS, ...)                                                                                \
  NS_KERNEL void __launch_bounds__(THREADS) NAME(                                                                            \
      const bf16_t* NS_RESTRICT q, const bf16_t* NS_RESTRICT keys, const bf16_t* NS_RESTRICT values,                         \
      const bf16_t* NS_RESTRICT dout, const float* NS_RESTRICT lse, const float* NS_RESTRICT delta,                          \
      const int* NS_RESTRICT pages, const int* NS_RESTRICT tiles, const int* NS_RESTRICT sequences, float* NS_RESTRICT dqkv, \
      float* NS_RESTRICT dbefore, int heads, int kv_heads, int pages_ld, int q_ld, int dqkv_ld, float scale,                 \
      float inverse_sqrt_d) {                                                                                                \
    attention_backward::__VA_ARGS__(attention_backward::Arguments{q, keys, values, dout, lse, delta, pages, tiles, sequences,    \
                                                              dqkv, dbefore, heads, kv_heads, pages_ld, q_ld, dqkv_ld,       \
                                                              scale, inverse_sqrt_d});                                       \
  }
#define NS_ATTENTION_PREPARE(D)                                                                                              \
  NS_KERNEL void __launch_bounds__(128) attention_prepare_d##D(                                                              \
      const float* NS_RESTRICT dout, const bf16_t* NS_RESTRICT out, bf16_t* NS_RESTRICT rounded, float* NS_RESTRICT delta,   \
      int count, int heads, int out_ld) {                                                                                    \
    attention_backward::prepare<D>(dout, out, rounded, delta, count, heads, out_ld);                                         \
  }
NS_ATTENTION_PREPARE(64)
NS_REGISTER(attention_prepare_d64);
NS_ATTENTION_PREPARE(128)
NS_REGISTER(attention_prepare_d128);
NS_ATTENTION_PASS(attention_backward_q_d64, 256, by_queries<64, attention_backward::Q_ROWS>)
NS_REGISTER(attention_backward_q_d64);
NS_ATTENTION_PASS(attention_backward_q_d128, 256, by_queries<128, attention_backward::Q_ROWS>)
NS_REGISTER(attention_backward_q_d128);
// For GPUs where a block cannot have that much shared memory.
NS_ATTENTION_PASS(attention_backward_q_small_d128, 128, by_queries<128, 64>)
NS_REGISTER(attention_backward_q_small_d128);
NS_ATTENTION_PASS(attention_backward_kv_d64, 128, by_keys<64>)
NS_REGISTER(attention_backward_kv_d64);
NS_ATTENTION_PASS(attention_backward_kv_d128, 128, by_keys<128>)
NS_REGISTER(attention_backward_kv_d128);
