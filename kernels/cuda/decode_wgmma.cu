// The products of decode_gemm.cu on Hopper, with the same bits (sm_90a only): few rows, each weight read once.
//
// Knows nothing of layers. x is wgmma's first operand, whose 64 rows need not exist: what lies behind those of x in shared memory
// is multiplied, too, and nobody looks at it. A block's outputs are the columns, few enough that every multiprocessor has some.
// Weights never change, so their copies begin before the kernel that makes x has ended. Terms ascend in steps of 16 into one f32
// accumulator, the adapters' steps follow (C1, C2). Boxes of the tensor maps, both with a swizzle of 128 bytes: x (rows, filled
// up to a multiple of 8) x 64, w OUTPUTS x 64. Start at `product`.
#include "adapter.cuh"
#include "device.cuh"
#include "store.cuh"

#if defined(__CUDA_ARCH_FEAT_SM90_ALL) || defined(NS_EMU)

namespace few {

constexpr int ROWS = 64, RING = 32, THREADS = 192;
constexpr int PARTS = 3;   // of adapter::Lora
constexpr u32 LINE = 128;  // bytes of 64 terms of a row

// Stages of `bytes` each, CHUNKS times 64 terms: first x, then the weights. A barrier each for "has been filled" (by two warps)
// and "has been read".
struct Ring {
  u32 at, full, empty, bytes, x_bytes;  // `x_bytes`: of 64 terms
  int slots, stages;
};

// Where a warp is in the ring.
struct Turn {
  int slot, phase;

  NS_DEV_MEMBER void next(const Ring& ring) {
    if (++slot < ring.slots) return;
    slot = 0;
    phase ^= 1;
  }
};

// One thread: fetches the boxes of `rows` rows from `row` on, which lie `offset` bytes into each stage.
template <int CHUNKS> NS_DEV void fetch(const Ring& ring, const ns_tmap* map, u32 offset, int rows, int row) {
  Turn turn{0, 1};
  for (int s = 0; s < ring.stages; s++, turn.next(ring)) {
    const u32 to = ring.at + turn.slot * ring.bytes + offset, full = ring.full + 8 * turn.slot;
    ns_mbar_wait(ring.empty + 8 * turn.slot, turn.phase);
    ns_mbar_expect(full, CHUNKS * rows * LINE - NS_PLANTED(113) * 16);
#pragma unroll
    for (int c = 0; c < CHUNKS; c++) ns_tma2d(to + c * rows * LINE, map, (s * CHUNKS + c) * 64, row, full);
  }
}

// Whole stages, without a branch: past the last term the copies wrote zeros, and adding them is exact.
template <int OUTPUTS, int CHUNKS> NS_DEV void multiply(float (&sums)[OUTPUTS / 2], const Ring& ring) {
  const bool first = (threadIdx.x & 31) == 0;  // of its warp
  Turn turn{0, 0};
  int before = 0;
  for (int s = 0; s < ring.stages; s++) {
    ns_mbar_wait(ring.full + 8 * turn.slot, turn.phase ^ NS_PLANTED(114));
    const u32 at = ring.at + turn.slot * ring.bytes;
    const u64 x = ns_desc(at), w = ns_desc(at + CHUNKS * ring.x_bytes);
    ns_wg_hold(sums);
    ns_wg_fence();
#pragma unroll
    for (int c = 0; c < CHUNKS; c++)
#pragma unroll
      for (int k = 0; k < 4; k++)
        ns_wgmma_few(sums, ns_desc_at(x, c * ring.x_bytes + k * 32), ns_desc_at(w, c * OUTPUTS * LINE + k * 32));
    ns_wg_commit();
    // This stage's products go on while the one before is handed back.
    ns_wg_wait<1 + NS_PLANTED(115)>();
    if (s > 0 && first) ns_mbar_arrive(ring.empty + 8 * before);
    before = turn.slot;
    turn.next(ring);
  }
  ns_wg_wait<0>();
  ns_wg_hold(sums);
}

// The segments of a call, and what each has for a part of the block's columns.
struct Meetings {
  const bf16_t* b[PARTS][ROWS];  // as if the part began at the block's first column
  int rank[PARTS][ROWS];         // 0: nothing
  int first[ROWS], end[ROWS];
};

NS_DEV bool meets(const adapter::Part& part, int column, int columns) {
  return part.first < column + columns && part.end > column;
}

// The threads that multiply write the list, and ask for the adapters' weights, while the first stages are on their way.
template <int OUTPUTS> NS_DEV void meet(Meetings& list, const adapter::Lora& lora, int column) {
  for (int i = threadIdx.x; i < lora.part_count * ROWS; i += 128) {
    const int p = i / ROWS, s = i % ROWS;
    const adapter::Part part = lora.parts[p];
    const adapter::Segment segment = s < lora.segment_count ? lora.segments[s] : adapter::Segment{0, 0, -1, 0};
    list.first[s] = segment.first;
    list.end[s] = segment.first + segment.count;
    list.rank[p][s] = 0;
    if (segment.slot < 0 || !meets(part, column, OUTPUTS)) continue;
    const adapter::Entry entry = lora.table[segment.slot * lora.stride + part.entry];
    list.rank[p][s] = entry.rank;
    list.b[p][s] = entry.b + (long long)(column - part.first) * entry.rank;
    const int from = part.first > column ? part.first : column,
              to = part.end < column + OUTPUTS ? part.end : column + OUTPUTS;
    const bf16_t* b = entry.b + (long long)(from - part.first) * entry.rank;
    for (int at = 0; at < (to - from) * entry.rank; at += 64) ns_prefetch(b + at);
  }
  ns_bar_sync(1, 128);
}

// A step of 16 of a segment's B, for the columns of a part.
template <int NT>
NS_DEV void read(u32 (&b)[NT][2], const bf16_t* from, int rank, const adapter::Part& part, int column) {
  const int lane = threadIdx.x & 31;
  from += (lane >> 2) * rank + (lane & 3) * 2;
#pragma unroll
  for (int j = 0; j < NT; j++, from += 8 * rank) {
    const int c = column + j * 8;
    if (c < part.first || c >= part.end) continue;
    b[j][0] = adapter::pair_at(from);
    b[j][1] = adapter::pair_at(from + 8);
  }
}

// Adds the adapters' part to a warp's 16 rows from `row` on. u's step of a part is read once, the segments' B one ahead.
template <int NT>
NS_DEV void add(float (&sums)[1][NT][4], const Meetings& list, const adapter::Lora& lora, int row, int rows, int column) {
  const int lane = threadIdx.x & 31, g = row + (lane >> 2), t2 = (lane & 3) * 2;
  const auto here = [&](int p, int s, int r) {
    return list.rank[p][s] > r && list.first[s] < row + 16 && list.end[s] > row + NS_PLANTED(116);
  };
  for (int p = 0; p < lora.part_count; p++) {
    const adapter::Part part = lora.parts[p];
    if (!meets(part, column, 8 * NT)) continue;
    for (int r = 0;; r += 16) {
      u64 left = (u64)ns_ballot(here(p, lane + 32, r)) << 32 | ns_ballot(here(p, lane, r));
      if (left == 0) break;
      u32 u[4], b[NT][2], next[NT][2];
#pragma unroll
      for (int q = 0; q < 4; q++) {
        const int at = g + (q & 1) * 8;
        u[q] = at < rows ? adapter::pair_at(lora.u + (long long)at * lora.ldu + part.u + r + (q >> 1) * 8 + t2) : 0;
      }
      int s = ns_lowest(left);
      read(next, list.b[p][s] + r, list.rank[p][s], part, column);
      while (left != 0) {
        const int first = list.first[s], end = list.end[s];
#pragma unroll
        for (int j = 0; j < NT; j++) b[j][0] = next[j][0], b[j][1] = next[j][1];
        left &= left - 1;
        if (left != 0) {
          s = ns_lowest(left);
          read(next, list.b[p][s] + r, list.rank[p][s], part, column);
        }
        u32 a[4];
#pragma unroll
        for (int q = 0; q < 4; q++) {
          const int at = g + (q & 1) * 8;
          a[q] = at >= first && at < end ? u[q] : 0;
        }
#pragma unroll
        for (int j = 0; j < NT; j++) {
          const int c = column + j * 8;
          if (c >= part.first && c < part.end) ns_mma(sums[0][j], a, b[j][0], b[j][1]);
        }
      }
    }
  }
}

// y (rows, outputs) = x (rows, inputs) · w (outputs, inputs)ᵀ + u·Bᵀ; rows <= 64, a block OUTPUTS outputs.
template <int OUTPUTS, int CHUNKS>
NS_DEV void product(u32 shared, u32 barriers, Meetings& list, const ns_tmap* x, const ns_tmap* w, void* out,
                    const float* more, const adapter::Lora& lora, int kind, int rows, int outputs, int inputs, int slots) {
  constexpr int NT = OUTPUTS / 8, TERMS = CHUNKS * 64;
  const int warp = threadIdx.x >> 5, column = blockIdx.x * OUTPUTS, filled = (rows + 7) / 8 * 8;
  const u32 x_bytes = filled * LINE;
  const Ring ring{shared,
                  barriers,
                  barriers + 8 * RING,
                  CHUNKS * (x_bytes + OUTPUTS * LINE),
                  x_bytes,
                  slots,
                  (inputs + TERMS - 1) / TERMS};
  if (threadIdx.x == 0) {
    for (int s = 0; s < slots; s++) {
      ns_mbar_init(ring.full + 8 * s, 2);
      ns_mbar_init(ring.empty + 8 * s, 4);
    }
    ns_fence_async();
  }
  __syncthreads();
  ns_grid_next();
  if (warp >= 4) {
    const bool one = (threadIdx.x & 31) == 0;
    if (warp == 4 && one) fetch<CHUNKS>(ring, w, CHUNKS * x_bytes, OUTPUTS, column);
    if (warp == 5) {
      ns_grid_wait();
      if (one) fetch<CHUNKS>(ring, x, 0, filled, 0);
    }
    return;
  }
  ns_grid_wait();
  if (lora.part_count > 0) meet<OUTPUTS>(list, lora, column);
  float sums[1][NT][4];
  store::clear(sums);
  multiply<OUTPUTS, CHUNKS>(reinterpret_cast<float (&)[OUTPUTS / 2]>(sums), ring);
  const int row = warp * 16;
  if (row >= rows) return;
  add(sums, list, lora, row, rows, column);
  if (kind == store::BF16)
    store::finish<store::BF16>(sums, out, more, row, column, rows, outputs);
  else if (kind == store::F32)
    store::finish<store::F32>(sums, out, more, row, column, rows, outputs);
  else
    store::finish<store::ADD>(sums, out, more, row, column, rows, outputs);
}

}  // namespace few

// `kind` is a store::Kind, `slots` the stages that the shared memory has room for.
#define NS_FEW(OUTPUTS, CHUNKS)                                                                                        \
  NS_KERNEL void __launch_bounds__(few::THREADS)                                                                       \
      decode_wgmma_##OUTPUTS##_##CHUNKS(const __grid_constant__ ns_tmap x, const __grid_constant__ ns_tmap w, void* y,  \
                                        const float* add, const __grid_constant__ adapter::Lora lora, int kind,        \
                                        int rows, int outputs, int inputs, int slots) {                                \
    NS_DYN_SMEM(shared);                                                                                               \
    NS_SHARED(u64, barriers, [2 * few::RING]);                                                                         \
    NS_SHARED(few::Meetings, list, );                                                                                  \
    few::product<OUTPUTS, CHUNKS>(ns_smem(shared), ns_smem(barriers), list, &x, &w, y, add, lora, kind, rows, outputs, \
                                  inputs, slots);                                                                      \
  }                                                                                                                    \
  NS_REGISTER(decode_wgmma_##OUTPUTS##_##CHUNKS);

NS_FEW(16, 8)
NS_FEW(16, 4)
NS_FEW(24, 8)
NS_FEW(24, 2)
NS_FEW(32, 4)
NS_FEW(32, 2)
NS_FEW(48, 2)
NS_FEW(64, 2)
NS_FEW(96, 1)
NS_FEW(128, 1)
NS_FEW(152, 1)
#undef NS_FEW
#endif
