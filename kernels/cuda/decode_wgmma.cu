// The products of decode_gemm.cu on Hopper, with the same bits (sm_90a only): few rows, each weight read once.
//
// Knows nothing of layers. x is wgmma's first operand, 64 rows a warpgroup, which need not exist: what lies behind those of x in
// shared memory is multiplied, too, and nobody looks at it. A block's outputs are the columns, few enough that every multiprocessor has some.
// Weights never change, so their copies begin before the kernel that makes x has ended. Terms ascend in steps of 16 into one f32
// accumulator, the adapters' steps follow (C1, C2). Boxes of the tensor maps, both with a swizzle of 128 bytes: x (rows, filled
// up to a multiple of 8) x 64, w OUTPUTS x 64. Start at `product`.
#include "adapter.cuh"
#include "device.cuh"
#include "store.cuh"

#if defined(__CUDA_ARCH_FEAT_SM90_ALL) || defined(NS_EMU)

namespace few {

constexpr int RING = 32;
constexpr int PARTS = 3;   // of adapter::Lora
constexpr u32 LINE = 128;  // bytes of 64 terms of a row

// Threads that multiply, 64 rows a group; two warps fetch.
template <int GROUPS> constexpr int WORKERS = GROUPS * 128;

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
template <int OUTPUTS, int CHUNKS> NS_DEV void multiply(float (&sums)[OUTPUTS / 2], const Ring& ring, int group) {
  const bool first = (threadIdx.x & 31) == 0;  // of its warp
  Turn turn{0, 0};
  int before = 0;
  for (int s = 0; s < ring.stages; s++) {
    ns_mbar_wait(ring.full + 8 * turn.slot, turn.phase ^ NS_PLANTED(114));
    const u32 at = ring.at + turn.slot * ring.bytes;
    const u64 x = ns_desc(at + group * 64 * LINE), w = ns_desc(at + CHUNKS * ring.x_bytes);
    ns_wg_hold(sums);
    ns_wg_fence();
#pragma unroll
    for (int c = 0; c < CHUNKS; c++)
#pragma unroll
      for (int k = 0; k < 4; k++)
        ns_wgmma_few(sums, ns_desc_at(x, c * ring.x_bytes + k * 32), ns_desc_at(w, c * OUTPUTS * LINE + k * 32));
    ns_wg_commit();
    // This stage's products go on while the one before is handed back.
    ns_wg_wait<1>();
    if (s > 0 && first) ns_mbar_arrive(ring.empty + 8 * (NS_PLANTED(115) ? turn.slot : before));
    before = turn.slot;
    turn.next(ring);
  }
  ns_wg_wait<0>();
  ns_wg_hold(sums);
}

// The segments of a call, and what each has for a part of the block's columns.
template <int GROUPS> struct Meetings {
  static constexpr int COUNT = GROUPS * 64;  // no more than rows
  const bf16_t* b[PARTS][COUNT];             // as if the part began at the block's first column
  int rank[PARTS][COUNT];                    // 0: nothing
  int first[COUNT], end[COUNT];
};

NS_DEV bool meets(const adapter::Part& part, int column, int columns) {
  return part.first < column + columns && part.end > column;
}

// The threads that multiply write the list, and ask for the adapters' weights, while the first stages are on their way.
template <int OUTPUTS, int GROUPS> NS_DEV void meet(Meetings<GROUPS>& list, const adapter::Lora& lora, int column) {
  constexpr int COUNT = Meetings<GROUPS>::COUNT;
  for (int i = threadIdx.x; i < lora.part_count * COUNT; i += WORKERS<GROUPS>) {
    const int p = i / COUNT, s = i % COUNT;
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
  ns_bar_sync(1, WORKERS<GROUPS>);
}

// A step of 16 of a segment's B, for those of COUNT times eight columns from `column` on that are the part's; `from` is the first
// column's row.
template <int COUNT>
NS_DEV void read(u32 (&b)[COUNT][2], const bf16_t* from, int rank, const adapter::Part& part, int column) {
  const int lane = threadIdx.x & 31;
  from += (lane >> 2) * rank + (lane & 3) * 2;
#pragma unroll
  for (int j = 0; j < COUNT; j++, from += 8 * rank) {
    const int c = column + j * 8;
    if (c < part.first || c >= part.end) continue;
    b[j][0] = adapter::pair_at(from);
    b[j][1] = adapter::pair_at(from + 8);
  }
}

// The first segment that ends after `row`. A warp's 16 rows meet 16 segments from there on at most.
template <int GROUPS> NS_DEV int first_of(const Meetings<GROUPS>& list, int row) {
  for (int from = 0; from < Meetings<GROUPS>::COUNT; from += 32) {
    const u32 after = ns_ballot(list.end[from + (threadIdx.x & 31)] > row + NS_PLANTED(116));
    if (after != 0) return from + ns_lowest(after);
  }
  return Meetings<GROUPS>::COUNT;
}

// Adds a step of 16 of a part, u's fragment `u`, for the `left` segments from `own` on: to COUNT times eight columns, the
// first being the warp's AT-th eight. The segments' B are read one ahead.
template <int AT, int COUNT, int NT, int GROUPS>
NS_DEV void add_step(float (&sums)[1][NT][4], const Meetings<GROUPS>& list, const u32 (&u)[4], u32 left, int own, int p,
                     int r, const adapter::Part& part, int row, int column) {
  const int g = row + ((threadIdx.x & 31) >> 2);
  u32 b[COUNT][2], next[COUNT][2];
  const auto ahead = [&](int s) {
    read(next, list.b[p][s] + AT * 8 * list.rank[p][s] + r, list.rank[p][s], part, column + AT * 8);
  };
  int s = own + ns_lowest(left);
  ahead(s);
  while (left != 0) {
    const int first = list.first[s], end = list.end[s];
#pragma unroll
    for (int j = 0; j < COUNT; j++) b[j][0] = next[j][0], b[j][1] = next[j][1];
    left &= left - 1;
    if (left != 0) ahead(s = own + ns_lowest(left));
    u32 a[4];
#pragma unroll
    for (int q = 0; q < 4; q++) {
      const int at = g + (q & 1) * 8;
      a[q] = at >= first && at < end ? u[q] : 0;
    }
#pragma unroll
    for (int j = 0; j < COUNT; j++) {
      const int c = column + (AT + j) * 8;
      if (c >= part.first && c < part.end) ns_mma(sums[0][AT + j], a, b[j][0], b[j][1]);
    }
  }
}

// Adds the adapters' part to a warp's 16 rows from `row` on. u's step of a part is read once.
template <int NT, int GROUPS>
NS_DEV void add(float (&sums)[1][NT][4], const Meetings<GROUPS>& list, const adapter::Lora& lora, int row, int rows,
                int column) {
  // Two groups' registers would not hold more columns at once; where they do, halves wait for memory twice as often.
  constexpr int HALF = GROUPS > 1 && NT > 12 ? (NT + 1) / 2 : NT;
  const int lane = threadIdx.x & 31, g = row + (lane >> 2), t2 = (lane & 3) * 2;
  const int own = first_of(list, row), mine = own + lane;
  const bool here = mine < Meetings<GROUPS>::COUNT && list.first[mine] < row + 16;
  for (int p = 0; p < lora.part_count; p++) {
    const adapter::Part part = lora.parts[p];
    if (!meets(part, column, 8 * NT)) continue;
    for (int r = 0;; r += 16) {
      const u32 left = ns_ballot(here && list.rank[p][mine] > r);
      if (left == 0) break;
      u32 u[4];
#pragma unroll
      for (int q = 0; q < 4; q++) {
        const int at = g + (q & 1) * 8;
        u[q] = at < rows ? adapter::pair_at(lora.u + (long long)at * lora.ldu + part.u + r + (q >> 1) * 8 + t2) : 0;
      }
      add_step<0, HALF>(sums, list, u, left, own, p, r, part, row, column);
      if constexpr (HALF < NT) add_step<HALF, NT - HALF>(sums, list, u, left, own, p, r, part, row, column);
    }
  }
}

// y (rows, outputs) = x (rows, inputs) · w (outputs, inputs)ᵀ + u·Bᵀ; rows <= 64·GROUPS, a block OUTPUTS outputs.
template <int OUTPUTS, int CHUNKS, int GROUPS>
NS_DEV void product(u32 shared, u32 barriers, Meetings<GROUPS>& list, const ns_tmap* x, const ns_tmap* w, void* out,
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
      ns_mbar_init(ring.empty + 8 * s, 4 * GROUPS);
    }
    ns_fence_async();
  }
  __syncthreads();
  ns_grid_next();
  if (warp >= 4 * GROUPS) {
    const bool one = (threadIdx.x & 31) == 0;
    if (warp == 4 * GROUPS && one) fetch<CHUNKS>(ring, w, CHUNKS * x_bytes, OUTPUTS, column);
    if (warp > 4 * GROUPS) {
      if (!NS_PLANTED(117)) ns_grid_wait();
      if (one) fetch<CHUNKS>(ring, x, 0, filled, 0);
    }
    return;
  }
  ns_grid_wait();
  if (lora.part_count > 0) meet<OUTPUTS>(list, lora, column);
  float sums[1][NT][4];
  store::clear(sums);
  multiply<OUTPUTS, CHUNKS>(reinterpret_cast<float (&)[OUTPUTS / 2]>(sums), ring, warp / 4);
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
#define NS_FEW(NAME, OUTPUTS, CHUNKS, GROUPS)                                                                          \
  NS_KERNEL void __launch_bounds__(few::WORKERS<GROUPS> + 64)                                                          \
      NAME(const __grid_constant__ ns_tmap x, const __grid_constant__ ns_tmap w, void* y, const float* add,            \
           const __grid_constant__ adapter::Lora lora, int kind, int rows, int outputs, int inputs, int slots) {       \
    NS_DYN_SMEM(shared);                                                                                               \
    NS_SHARED(u64, barriers, [2 * few::RING]);                                                                         \
    NS_SHARED(few::Meetings<GROUPS>, list, );                                                                          \
    few::product<OUTPUTS, CHUNKS, GROUPS>(ns_smem(shared), ns_smem(barriers), list, &x, &w, y, add, lora, kind, rows,  \
                                          outputs, inputs, slots);                                                     \
  }                                                                                                                    \
  NS_REGISTER(NAME);

NS_FEW(decode_wgmma_16_8, 16, 8, 1)
NS_FEW(decode_wgmma_16_4, 16, 4, 1)
NS_FEW(decode_wgmma_24_8, 24, 8, 1)
NS_FEW(decode_wgmma_24_4, 24, 4, 1)
NS_FEW(decode_wgmma_32_4, 32, 4, 1)
NS_FEW(decode_wgmma_48_4, 48, 4, 1)
NS_FEW(decode_wgmma_48_2, 48, 2, 1)
NS_FEW(decode_wgmma_64_2, 64, 2, 1)
NS_FEW(decode_wgmma_96_1, 96, 1, 1)
NS_FEW(decode_wgmma_128_1, 128, 1, 1)
NS_FEW(decode_wgmma_152_1, 152, 1, 1)
NS_FEW(decode_wgmma_24_2_128, 24, 2, 2)
NS_FEW(decode_wgmma_32_2_128, 32, 2, 2)
NS_FEW(decode_wgmma_48_2_128, 48, 2, 2)
NS_FEW(decode_wgmma_64_1_128, 64, 1, 2)
NS_FEW(decode_wgmma_96_1_128, 96, 1, 2)
NS_FEW(decode_wgmma_128_1_128, 128, 1, 2)
NS_FEW(decode_wgmma_152_1_128, 152, 1, 2)
#undef NS_FEW
#endif
