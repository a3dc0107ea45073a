// Low-rank adapters: their inner result u = bf16(s·(x·Aᵀ)), their gradients, and the copies that products read (sm_80 and later).
//
// Knows nothing of layers; what u adds to a product is in adapter.cuh. No atomics: each output has one owner and a fixed order.
// Start at `lora_down`.
#include "adapter.cuh"
#include "device.cuh"

namespace lora {

// The terms of u are dealt to this many chains, each a contiguous run of steps of 16; the chains are added in ascending order.
// One warp would walk 4,096 terms for 16 numbers. The deal depends on the number of terms only, so a row's bits do not move.
constexpr int CHAINS = 8;

// The `ordinal`-th segment that meets the 16 rows from `row` on, if there is one.
NS_DEV bool nth_segment(const adapter::Lora& l, int row, int ordinal, adapter::Segment& segment) {
  const int s = adapter::first_segment(l, row) + ordinal;
  if (s >= l.segment_count) return false;
  segment = l.segments[s];
  return segment.first < row + 16 && segment.slot >= 0;
}

// Address of a chunk of 8 elements in rows of 128 bytes.
NS_DEV u32 at(int row, int chunk) { return (u32)(row * 128 + ((chunk ^ (row & 7)) << 4)); }

// A chain's own stages: 64 terms of 16 rows of x and of 16 rows of A.
constexpr int CHAIN_STAGES = 4, CHAIN_STAGE = 32 * 128;

// A chain's share of x[row.., :]·Aᵀ for 16 rows and 16 columns of u; rows outside of the segment count as zeros.
NS_DEV void chain(float (&sums)[2][4], u32 shared, const bf16_t* x, int ldx, const bf16_t* a, int terms, int row,
                  const adapter::Segment& segment, int warp) {
  const int lane = threadIdx.x & 31;
  const int steps = terms / 16, begin = steps * warp / CHAINS * 16, end = steps * (warp + 1) / CHAINS * 16;
  const int stages = (end - begin + 63) / 64;
  shared += warp * CHAIN_STAGES * CHAIN_STAGE;
  const auto fill = [&](int s) {
    const u32 to = shared + s % CHAIN_STAGES * CHAIN_STAGE;
#pragma unroll
    for (int i = 0; i < 8; i++) {
      const int r = (lane >> 3) + i * 4, chunk = lane & 7, k = begin + s * 64 + chunk * 8;
      if (k >= end) continue;
      const bool inside = row + r >= segment.first && row + r < segment.first + segment.count;
      if (r >= 16)
        ns_cp16(to + at(r, chunk), a + (long long)(r - 16) * terms + k);
      else
        ns_cp16z(to + at(r, chunk), x + (inside ? (long long)(row + r) * ldx + k : 0), inside);
    }
  };
#pragma unroll
  for (int s = 0; s < CHAIN_STAGES - 1; s++) {
    if (s < stages) fill(s);
    ns_cp_commit();
  }
  for (int s = 0; s < stages; s++) {
    ns_cp_wait<CHAIN_STAGES - 2 + NS_PLANTED(123)>();
    ns_syncwarp();
    if (s + CHAIN_STAGES - 1 < stages) fill(s + CHAIN_STAGES - 1);
    ns_cp_commit();
    const u32 stage = shared + s % CHAIN_STAGES * CHAIN_STAGE;
#pragma unroll
    for (int kk = 0; kk < 4; kk++) {
      if (begin + s * 64 + kk * 16 >= end) break;
      u32 left[4], b0, b1, b2, b3;
      ns_ldsm4(left[0], left[1], left[2], left[3], stage + at(lane & 15, kk * 2 + (lane >> 4)));
      ns_ldsm4(b0, b1, b2, b3, stage + at(16 + (lane & 7) + ((lane >> 4) << 3), kk * 2 + ((lane >> 3) & 1)));
      ns_mma(sums[0], left, b0, b1);
      ns_mma(sums[1], left, b2, b3);
    }
  }
}

template <bool FORWARD>
NS_DEV void down(u32 stages, float (*shared)[16][16], const bf16_t* x, int ldx, const adapter::Lora& l, int rows) {
  const int row = blockIdx.x * 16, warp = threadIdx.x >> 5, lane = threadIdx.x & 31;
  const int tiles = gridDim.y / l.part_count, part_index = blockIdx.y / tiles, first = blockIdx.y % tiles * 16;
  ns_grid_next();
  ns_grid_wait();
  adapter::Segment segment;
  if (!nth_segment(l, row, blockIdx.z, segment)) return;
  const adapter::Part part = l.parts[part_index];
  const adapter::Entry entry = l.table[segment.slot * l.stride + part.entry];
  if (first >= entry.rank) return;
  const int terms = part.end - part.first;
  const bf16_t* a = (FORWARD ? entry.a : entry.b_t) + (long long)first * terms;
  float sums[2][4] = {};
  chain(sums, stages, x + part.first, ldx, a, terms, row, segment, warp);
#pragma unroll
  for (int j = 0; j < 2; j++)
#pragma unroll
    for (int q = 0; q < 4; q++) shared[warp][(lane >> 2) + (q >> 1) * 8][j * 8 + (lane & 3) * 2 + (q & 1)] = sums[j][q];
  if (!NS_PLANTED(120)) __syncthreads();
  const int r = threadIdx.x >> 4, c = threadIdx.x & 15;
  float sum = shared[0][r][c];
#pragma unroll
  for (int w = 1; w < CHAINS; w++) sum += shared[w][r][c];
  const int at = row + r;
  if (at >= segment.first && at < segment.first + segment.count && at < rows)
    l.u[(long long)at * l.ldu + part.u + first + c] = ns_f2bf(entry.scale * sum);
}

// Rows whose products are one sum: a batch has so many rows that one block a column would leave most of a GPU idle.
constexpr int RUN = 512;
constexpr int WIDE = 64;   // columns of the wide matrix in a block, 16 a warp
constexpr int RANK = 64;   // columns of u in a block
constexpr int DEPTH = 32;  // rows of a stage
constexpr int STAGES = 4;
constexpr int STAGE = DEPTH * (WIDE + RANK) * 2;

// Starts the copies of rows [row, row + DEPTH). Rows past the end become zeros: they are terms of every sum.
NS_DEV void fill(unsigned char* shared, int stage, const bf16_t* wide, int ldw, const bf16_t* u, int ldu, int row,
                 int rows, int column, int columns, int first, int rank) {
  const u32 base = ns_smem(shared) + stage * STAGE;
#pragma unroll
  for (int i = 0; i < 4; i++) {
    const int c = threadIdx.x + i * 128, r = c >> 4 & 31, chunk = c & 15;
    const bool narrow = chunk >= 8;
    const int left = narrow ? first + (chunk - 8) * 8 : column + chunk * 8;
    const u32 to = (narrow ? DEPTH * WIDE * 2 : 0) + at(r, chunk & 7);
    if (left >= (narrow ? rank : columns)) continue;
    const long long from = (long long)(row + r);
    if (row + r < rows + NS_PLANTED(121))
      ns_cp16(base + to, narrow ? u + from * ldu + left : wide + from * ldw + left);
    else
      *(u32x4*)(shared + stage * STAGE + to) = u32x4{0, 0, 0, 0};
  }
}

}  // namespace lora

// u[:, part] = bf16(s·(x[:, part]·Aᵀ)). Grid: (rows / 16, parts · largest rank / 16, segments of 16 rows at most), 256 threads.
NS_KERNEL void __launch_bounds__(256)
    lora_down(const bf16_t* x, const __grid_constant__ adapter::Lora l, int rows, int ldx) {
  NS_DYN_SMEM(stages);
  NS_SHARED(float, shared, [lora::CHAINS][16][16]);
  lora::down<true>(ns_smem(stages), shared, x, ldx, l, rows);
}
NS_REGISTER(lora_down);

// du[:, part] = bf16(s·(dy[:, part]·B)).
NS_KERNEL void __launch_bounds__(256)
    lora_down_backward(const bf16_t* dy, const __grid_constant__ adapter::Lora l, int rows, int lddy) {
  NS_DYN_SMEM(stages);
  NS_SHARED(float, shared, [lora::CHAINS][16][16]);
  lora::down<false>(ns_smem(stages), shared, dy, lddy, l, rows);
}
NS_REGISTER(lora_down_backward);

// runs[run, r, i] = sum over the run's rows of wide[row, i] * u[row, r], ascending in steps of 16 from zero. dB: wide = dy, u;
// dA: wide = x, du. Grid: (columns / 64, rank / 64, runs), 128 threads. `rank` is filled up.
NS_KERNEL void __launch_bounds__(128) lora_gradient(const bf16_t* wide, const bf16_t* u, float* runs, int rows,
                                                    int columns, int rank, int ldw, int ldu) {
  using namespace lora;
  const int begin = blockIdx.z * RUN, left = rows - begin;
  rows = left < RUN ? left : RUN;
  wide += (long long)begin * ldw;
  u += (long long)begin * ldu;
  runs += (long long)blockIdx.z * rank * columns;
  NS_DYN_SMEM(shared);
  const u32 base = ns_smem(shared);
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, column = blockIdx.x * WIDE, first = blockIdx.y * RANK;
  const int stages = (rows + DEPTH - 1) / DEPTH;
  float sums[RANK / 8][4] = {};
#pragma unroll
  for (int s = 0; s < STAGES - 1; s++) {
    if (s < stages) fill(shared, s, wide, ldw, u, ldu, s * DEPTH, rows, column, columns, first, rank);
    ns_cp_commit();
  }
  for (int s = 0; s < stages; s++) {
    ns_cp_wait<STAGES - 2>();
    __syncthreads();
    const int next = s + STAGES - 1;
    if (next < stages) fill(shared, next % STAGES, wide, ldw, u, ldu, next * DEPTH, rows, column, columns, first, rank);
    ns_cp_commit();
    const u32 stage = base + s % STAGES * STAGE;
#pragma unroll
    for (int kk = 0; kk < DEPTH / 16; kk++) {
      const int eight = lane & 7, one = (lane >> 3) & 1, two = lane >> 4;
      u32 a[4];
      // Transposed: the first operand's rows are columns of `wide`.
      ns_ldsm4t(a[0], a[1], a[2], a[3], stage + at(kk * 16 + eight + two * 8, warp * 2 + one));
#pragma unroll
      for (int j = 0; j < RANK / 16; j++) {
        if (first + j * 16 >= rank) continue;
        u32 b0, b1, b2, b3;
        ns_ldsm4t(b0, b1, b2, b3, stage + DEPTH * WIDE * 2 + at(kk * 16 + eight + one * 8, j * 2 + two));
        ns_mma(sums[2 * j], a, b0, b1);
        ns_mma(sums[2 * j + 1], a, b2, b3);
      }
    }
  }
#pragma unroll
  for (int j = 0; j < RANK / 8; j++)
#pragma unroll
    for (int q = 0; q < 4; q++) {
      const int i = column + warp * 16 + (q >> 1) * 8 + (lane >> 2), r = first + j * 8 + (lane & 3) * 2 + (q & 1);
      if (i < columns && r < rank) runs[r * columns + i] = sums[j][q];
    }
}
NS_REGISTER(lora_gradient);

// out[i·by_wide + r·by_rank] += the runs' sums, ascending, for r below `kept`, the rank that is not filled up. A thread an element.
NS_KERNEL void __launch_bounds__(256) lora_gradient_sum(const float* runs, float* out, int count, int columns, int rank,
                                                        int kept, int by_wide, int by_rank) {
  const int at = blockIdx.x * 256 + threadIdx.x;
  if (at >= kept * columns) return;
  float sum = runs[at];
  for (int run = 1; run < count; run++) sum += runs[(long long)run * rank * columns + at];
  out[(long long)(at % columns) * by_wide + (long long)(at / columns) * by_rank] += sum;
}
NS_REGISTER(lora_gradient_sum);

namespace lora {

// A matrix to pack: f32 (rows, columns), to bf16 in both orientations, the rank filled up with zeros: `to` has `ld` elements a
// row and `to_t` `ld_t`.
struct Matrix {
  const float* from;
  bf16_t* to;
  bf16_t* to_t;
  int rows, columns, ld, ld_t;
  int first;  // block
  int unused;
};
// A and B of seven projections.
struct Matrices {
  Matrix of[14];
};

}  // namespace lora

// Matrices of an adapter, one after the other. Grid: Σ (ld / 16 · ld_t / 16), 256 threads. Behind the last, `first` is beyond
// the grid.
NS_KERNEL void __launch_bounds__(256) lora_pack(const __grid_constant__ lora::Matrices all) {
  NS_SHARED(bf16_t, tile, [16][17]);
  const int block = blockIdx.x;
  int which = 0;
  while (which < 13 && all.of[which + 1].first <= block) which++;
  const lora::Matrix& in = all.of[which];
  const int across = in.ld / 16, own = block - in.first;
  const int x = threadIdx.x & 15, y = threadIdx.x >> 4, column = own % across * 16, row = own / across * 16;
  const bool inside = row + y < in.rows && column + x < in.columns;
  const bf16_t value = inside ? ns_f2bf(in.from[(long long)(row + y) * in.columns + column + x]) : 0;
  in.to[(long long)(row + y) * in.ld + column + x] = value;
  tile[y][x] = value;
  if (!NS_PLANTED(122)) __syncthreads();
  in.to_t[(long long)(column + y) * in.ld_t + row + x] = tile[x][y];
}
NS_REGISTER(lora_pack);
