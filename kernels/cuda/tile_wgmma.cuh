// The products of tile.cuh on Hopper: one warpgroup fetches by TMA, two multiply by wgmma (sm_90a only).
//
// Knows nothing of what becomes of the sums. Tiles of 128 x 256, 64 terms a stage, blocks that take tile after tile. Terms
// ascend in steps of 16 into one f32 accumulator, whose registers lie as mma.sync has them: the bits are those of tile.cuh (C1).
// Start at `multiply`.
#pragma once
#include "device.cuh"
#include "tile.cuh"

#if defined(__CUDA_ARCH_FEAT_SM90_ALL) || defined(NS_EMU)

namespace tile_wgmma {

constexpr int ROWS = 128, COLUMNS = 256, DEPTH = 64, STAGES = 4, THREADS = 384;
constexpr u32 LEFT = ROWS * DEPTH * 2, RIGHT = COLUMNS * DEPTH * 2, STAGE = LEFT + RIGHT;
// Fragments of 16 x 8 in a warp's part of the tile.
constexpr int MT = 1, NT = 32;
// Columns of a box of the second operand whose terms lie down its columns: 64 of them are a swizzled row.
constexpr int BLOCK = 64;
constexpr u32 BLOCK_BYTES = BLOCK * DEPTH * 2;

using tile::ALONG;
using tile::DOWN;
using tile::Terms;

// Where a product's tiles and stages are; the same for those who fetch and those who multiply.
struct Plan {
  int tall, across, stages;
  u32 shared, full, empty;  // memory of the stages; a barrier each for "has been filled", "has been read"
};

// One thread. Every stage counts whole boxes: TMA writes zeros for what is outside of a matrix, and counts them.
template <Terms TERMS> NS_DEV void fetch(const Plan& plan, const ns_tmap* a, const ns_tmap* b) {
  int turn = 0;
  for (int tile = blockIdx.x; tile < plan.tall * plan.across; tile += gridDim.x) {
    int row, column;
    tile::place(tile, plan.tall, plan.across, row, column);
    for (int s = 0; s < plan.stages; s++, turn++) {
      const int slot = turn % STAGES, depth = s * DEPTH;
      const u32 to = plan.shared + slot * STAGE, full = plan.full + 8 * slot;
      ns_mbar_wait(plan.empty + 8 * slot, (turn / STAGES & 1) ^ 1);
      ns_mbar_expect(full, STAGE - NS_PLANTED(104) * 16);
      ns_tma2d(to, a, depth, row * ROWS, full);
      if (TERMS == ALONG)
        ns_tma2d(to + LEFT, b, depth, column * COLUMNS, full);
      else
        for (int i = 0; i < COLUMNS / BLOCK; i++)
          ns_tma2d(to + LEFT + i * BLOCK_BYTES, b, column * COLUMNS + i * BLOCK, depth, full);
    }
  }
}

// Whole stages, without a branch (which would make ptxas wait for each product): past the last term TMA wrote zeros, and
// adding them is exact.
template <Terms TERMS> NS_DEV void stage(float (&sums)[128], u32 a, u32 b) {
  ns_wg_hold(sums);
  ns_wg_fence();
#pragma unroll
  for (int k = 0; k < DEPTH / 16; k++) {
    if (TERMS == ALONG)
      ns_wgmma_n256(sums, ns_desc(a + k * 32), ns_desc(b + k * 32), 1);
    else
      ns_wgmma_n256<1>(sums, ns_desc(a + k * 32), ns_desc_down(b + k * 16 * BLOCK * 2, BLOCK_BYTES >> NS_PLANTED(107)),
                       1);
  }
  ns_wg_commit();
}

// A warpgroup: 64 rows of each tile. `end(sums, row, column)` gets each warp's.
template <Terms TERMS, class End> NS_DEV void consume(const Plan& plan, int group, End end) {
  const bool first = (threadIdx.x & 31) == 0;  // of its warp
  int turn = 0;
  for (int tile = blockIdx.x; tile < plan.tall * plan.across; tile += gridDim.x) {
    int row, column;
    tile::place(tile, plan.tall, plan.across, row, column);
    row = row * ROWS + group * 64 + (threadIdx.x >> 5 & 3) * 16;
    column *= COLUMNS;
    float sums[MT][NT][4];
    float (&flat)[128] = reinterpret_cast<float (&)[128]>(sums);
#pragma unroll
    for (int i = 0; i < 128; i++) flat[i] = 0.0f;
    for (int s = 0; s < plan.stages; s++, turn++) {
      const int slot = turn % STAGES;
      ns_mbar_wait(plan.full + 8 * slot, (turn / STAGES & 1) ^ NS_PLANTED(106));
      const u32 at = plan.shared + slot * STAGE;
      stage<TERMS>(flat, at + group * 64 * 128, at + LEFT);
      // This stage's products go on while the one before is handed back.
      ns_wg_wait<1>();
      if (s > 0 && first) ns_mbar_arrive(plan.empty + 8 * ((turn - !NS_PLANTED(105)) % STAGES));
    }
    ns_wg_wait<0>();
    ns_wg_hold(flat);
    if (first) ns_mbar_arrive(plan.empty + 8 * ((turn - 1) % STAGES));
    end(sums, row, column);
  }
}

// All tiles of a · b with `terms` terms. `barriers` has 2·STAGES of 8 bytes, `shared` STAGES·STAGE bytes.
template <Terms TERMS, class End>
NS_DEV void multiply(u32 shared, u32 barriers, const ns_tmap* a, const ns_tmap* b, int rows, int columns, int terms,
                     End end) {
  const Plan plan{
      (rows + ROWS - 1) / ROWS, (columns + COLUMNS - 1) / COLUMNS, (terms + DEPTH - 1) / DEPTH, shared, barriers,
      barriers + 8 * STAGES};
  if (threadIdx.x == 0) {
    for (int s = 0; s < STAGES; s++) {
      ns_mbar_init(plan.full + 8 * s, 1);
      ns_mbar_init(plan.empty + 8 * s, 8);  // the warps that multiply
    }
    ns_fence_async();
  }
  __syncthreads();
  if (threadIdx.x < 128) {
    ns_regs_dec<40>();
    if (threadIdx.x == 0) fetch<TERMS>(plan, a, b);
  } else {
    ns_regs_inc<232>();
    consume<TERMS>(plan, (threadIdx.x >> 7) - 1, end);
  }
}

}  // namespace tile_wgmma

#endif
