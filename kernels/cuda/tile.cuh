// A block's tile of a product on the tensor cores (sm_80 and later): 128 rows x 128 columns, 8 warps of 64 x 32.
//
// Knows nothing of what becomes of the sums, or of adapters. The terms come in steps of 16, ascending, into one f32
// accumulator (contract C1), through four stages of shared memory that cp.async fills ahead. Start at `multiply`.
#pragma once
#include "device.cuh"

namespace tile {

constexpr int ROWS = 128, COLUMNS = 128, THREADS = 256;
constexpr int DEPTH = 32;  // terms of a stage
constexpr int STAGES = 4;
constexpr int OPERAND = ROWS * DEPTH * 2;  // bytes of one operand's stage
constexpr int SHARED = STAGES * 2 * OPERAND;
// Fragments of 16 x 8 in a warp's part of the tile.
constexpr int MT = 4, NT = 4;

// Row-major, `ld` elements from row to row.
struct Matrix {
  const bf16_t* at;
  int rows, columns, ld;
};

// Where the second operand's terms lie: along its rows (y = x·Wᵀ) or down its columns (dx = dy·W).
enum Terms { ALONG, DOWN };

// Address of a chunk of 8 elements in rows of 64 bytes: eight rows of one chunk fall into different banks.
NS_DEV u32 narrow(int row, int chunk) { return (u32)(row * 64 + ((chunk ^ ((row >> 1) & 3)) << 4)); }

// The same in rows of 256 bytes.
NS_DEV u32 wide(int row, int chunk) { return (u32)(row * 256 + ((chunk ^ (row & 7)) << 4)); }

// Block `id` of a grid of tiles: blocks that run together share rows and columns, which then come from the L2 cache.
NS_DEV void place(int id, int tall, int across, int& row, int& column) {
  constexpr int GROUP = 16;
  const int group = id / (GROUP * across), left = tall - group * GROUP, high = left < GROUP ? left : GROUP;
  const int inside = id - group * GROUP * across;
  row = group * GROUP + inside % high;
  column = inside / high;
}

// Starts the copies of one stage. What lies outside of a matrix is left as it is: it reaches no sum that is kept.
template <Terms TERMS> NS_DEV void fill(u32 stage, const Matrix& a, const Matrix& b, int row, int column, int depth) {
#pragma unroll
  for (int i = 0; i < 2; i++) {
    const int at = threadIdx.x + i * THREADS, r = at >> 2, chunk = at & 3, k = depth + chunk * 8;
    if (row + r < a.rows && k < a.columns) ns_cp16(stage + narrow(r, chunk), a.at + (long long)(row + r) * a.ld + k);
  }
  stage += OPERAND;
#pragma unroll
  for (int i = 0; i < 2; i++) {
    const int at = threadIdx.x + i * THREADS;
    if (TERMS == ALONG) {
      const int r = at >> 2, chunk = at & 3, k = depth + chunk * 8;
      if (column + r < b.rows && k < b.columns)
        ns_cp16(stage + narrow(r, chunk), b.at + (long long)(column + r) * b.ld + k);
    } else {
      const int r = at >> 4, chunk = at & 15, c = column + chunk * 8;
      if (depth + r < b.rows && c < b.columns)
        ns_cp16(stage + wide(r, chunk), b.at + (long long)(depth + r) * b.ld + c);
    }
  }
}

// One step of 16 terms of a warp's 64 x 32 sums.
template <Terms TERMS> NS_DEV void step(float (&sums)[MT][NT][4], u32 stage, int kk) {
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, across = warp >> 1, down = warp & 1;
  u32 a[MT][4], b[NT][2];
#pragma unroll
  for (int i = 0; i < MT; i++)
    ns_ldsm4(a[i][0], a[i][1], a[i][2], a[i][3],
             stage + narrow(down * 64 + i * 16 + (lane & 15), (kk * 2 + (lane >> 4)) ^ NS_PLANTED(103)));
  stage += OPERAND;
#pragma unroll
  for (int j = 0; j < NT / 2; j++) {
    u32 &b0 = b[2 * j][0], &b1 = b[2 * j][1], &b2 = b[2 * j + 1][0], &b3 = b[2 * j + 1][1];
    const int eight = lane & 7, low = (lane >> 3) & 1, high = lane >> 4;
    if (TERMS == ALONG)
      ns_ldsm4(b0, b1, b2, b3, stage + narrow(across * 32 + j * 16 + eight + high * 8, kk * 2 + low));
    else
      ns_ldsm4t(b0, b1, b2, b3, stage + wide(kk * 16 + eight + low * 8, across * 4 + j * 2 + high));
  }
#pragma unroll
  for (int i = 0; i < MT; i++)
#pragma unroll
    for (int j = 0; j < NT; j++) ns_mma(sums[i][j], a[i], b[j][0], b[j][1]);
}

// sums += a[row.., :] · b, over all of `terms` (a multiple of 16), ascending. `shared` has SHARED bytes.
template <Terms TERMS>
NS_DEV void multiply(float (&sums)[MT][NT][4], u32 shared, const Matrix& a, const Matrix& b, int row, int column) {
  const int steps = a.columns / 16, stages = (steps + 1) / 2;
#pragma unroll
  for (int s = 0; s < STAGES - 1; s++) {
    if (s < stages) fill<TERMS>(shared + s * 2 * OPERAND, a, b, row, column, s * DEPTH);
    ns_cp_commit();
  }
  for (int s = 0; s < stages; s++) {
    ns_cp_wait<STAGES - 2 + NS_PLANTED(101)>();
    if (!NS_PLANTED(100)) __syncthreads();
    const int next = s + STAGES - 1;
    if (next < stages) fill<TERMS>(shared + next % STAGES * 2 * OPERAND, a, b, row, column, next * DEPTH);
    ns_cp_commit();
    const u32 stage = shared + s % STAGES * 2 * OPERAND;
    step<TERMS>(sums, stage, 0);
    if (2 * s + 1 < steps + NS_PLANTED(102)) step<TERMS>(sums, stage, 1);
  }
}

// Calls `f(row, column, first, second)` for each pair of neighbouring sums of a warp whose part begins at (row, column).
template <int MT_, int NT_, class F> NS_DEV void each_pair(float (&sums)[MT_][NT_][4], int row, int column, F f) {
  const int lane = threadIdx.x & 31;
#pragma unroll
  for (int i = 0; i < MT_; i++)
#pragma unroll
    for (int j = 0; j < NT_; j++)
#pragma unroll
      for (int half = 0; half < 2; half++)
        f(row + i * 16 + half * 8 + (lane >> 2), column + j * 8 + (lane & 3) * 2, sums[i][j][2 * half],
          sums[i][j][2 * half + 1]);
}

// First row and first column of this warp's part, inside the block's tile.
NS_DEV int warp_row() { return ((threadIdx.x >> 5) & 1) * 64; }
NS_DEV int warp_column() { return (threadIdx.x >> 6) * 32; }

}  // namespace tile
