// The product y = x·Wᵀ on Hopper: one warpgroup fetches by TMA, two multiply by wgmma (sm_90a only).
//
// Knows nothing of layers. Tiles of 128 x 256, 64 terms a stage, blocks that stay and take tile after tile. Terms ascend in steps
// of 16 into one f32 accumulator, and the adapters' steps are mma.sync on the same registers: the bits of gemm.cu (C1, C2).
// K and N are multiples of 16. Start at `consume`.
#include "adapter.cuh"
#include "device.cuh"
#include "store.cuh"
#include "tile.cuh"

#if defined(__CUDA_ARCH_FEAT_SM90_ALL) || defined(NS_EMU)

namespace gemm_wgmma {

constexpr int ROWS = 128, COLUMNS = 256, DEPTH = 64, STAGES = 4;
constexpr u32 LEFT = ROWS * DEPTH * 2, RIGHT = COLUMNS * DEPTH * 2, STAGE = LEFT + RIGHT;

// Where a product's tiles and stages are; the same for those who fetch and those who multiply.
struct Plan {
    int rows, outputs, tall, across, steps, stages;
    u32 shared, full, empty; // memory of the stages; a barrier each for "has been filled", "has been read"
};

// One thread. Every stage counts whole boxes: TMA writes zeros for what is outside of a matrix, and counts them.
NS_DEV void fetch(const Plan &plan, const ns_tmap *x, const ns_tmap *w) {
    int turn = 0;
    for (int tile = blockIdx.x; tile < plan.tall * plan.across; tile += gridDim.x) {
        int row, column;
        tile::place(tile, plan.tall, plan.across, row, column);
        for (int s = 0; s < plan.stages; s++, turn++) {
            const int slot = turn % STAGES;
            ns_mbar_wait(plan.empty + 8 * slot, (turn / STAGES & 1) ^ 1);
            ns_mbar_expect(plan.full + 8 * slot, STAGE);
            ns_tma2d(plan.shared + slot * STAGE, x, s * DEPTH, row * ROWS, plan.full + 8 * slot);
            ns_tma2d(plan.shared + slot * STAGE + LEFT, w, s * DEPTH, column * COLUMNS, plan.full + 8 * slot);
        }
    }
}

// A warpgroup: 64 rows of each tile.
template <store::Kind KIND>
NS_DEV void consume(const Plan &plan, int group, const adapter::Lora &lora, void *out, const float *add) {
    const int warp = threadIdx.x >> 5 & 3, stages = plan.stages;
    int turn = 0;
    for (int tile = blockIdx.x; tile < plan.tall * plan.across; tile += gridDim.x) {
        int row, column;
        tile::place(tile, plan.tall, plan.across, row, column);
        float sums[1][32][4];
        float(&flat)[128] = reinterpret_cast<float(&)[128]>(sums);
        for (int s = 0; s < stages; s++, turn++) {
            const int slot = turn % STAGES;
            ns_mbar_wait(plan.full + 8 * slot, turn / STAGES & 1);
            const u32 a = plan.shared + slot * STAGE + group * 64 * 128, b = plan.shared + slot * STAGE + LEFT;
            ns_wg_fence();
#pragma unroll
            for (int k = 0; k < DEPTH / 16; k++)
                if (4 * s + k < plan.steps) ns_wgmma_n256(flat, ns_desc(a + k * 32), ns_desc(b + k * 32), (s | k) != 0);
            ns_wg_commit();
            // This stage's products go on while the one before is handed back.
            ns_wg_wait<1>();
            if (s > 0 && (threadIdx.x & 127) == 0) ns_mbar_arrive(plan.empty + 8 * ((turn - 1) % STAGES));
        }
        ns_wg_wait<0>();
        if ((threadIdx.x & 127) == 0) ns_mbar_arrive(plan.empty + 8 * ((turn - 1) % STAGES));
        const int r = row * ROWS + group * 64 + warp * 16, c = column * COLUMNS;
        adapter::add<true>(sums, lora, r, c);
        store::finish<KIND>(sums, out, add, r, c, plan.rows, plan.outputs);
    }
}

template <store::Kind KIND>
NS_DEV void product(u32 shared, u32 barriers, const ns_tmap *x, const ns_tmap *w, void *out, const float *add,
                    const adapter::Lora &lora, int rows, int outputs, int inputs) {
    const Plan plan{rows,
                    outputs,
                    (rows + ROWS - 1) / ROWS,
                    (outputs + COLUMNS - 1) / COLUMNS,
                    inputs / 16,
                    (inputs + DEPTH - 1) / DEPTH,
                    shared,
                    barriers,
                    barriers + 8 * STAGES};
    if (threadIdx.x == 0) {
        for (int s = 0; s < STAGES; s++) {
            ns_mbar_init(plan.full + 8 * s, 1);
            ns_mbar_init(plan.empty + 8 * s, 2);
        }
        ns_fence_async();
    }
    __syncthreads();
    if (threadIdx.x < 128) {
        ns_regs_dec<40>();
        if (threadIdx.x == 0) fetch(plan, x, w);
    } else {
        ns_regs_inc<232>();
        consume<KIND>(plan, (threadIdx.x >> 7) - 1, lora, out, add);
    }
}

} // namespace gemm_wgmma

// y (rows, outputs) = x (rows, inputs) · w (outputs, inputs)ᵀ + u·Bᵀ. Boxes of the maps: x 128 x 64, w 256 x 64, both with a
// swizzle of 128 bytes. As many blocks as multiprocessors.
#define NS_WGMMA(NAME, KIND)                                                                                             \
    NS_KERNEL void __launch_bounds__(384, 1)                                                                             \
        NAME(const __grid_constant__ ns_tmap x, const __grid_constant__ ns_tmap w, void *y, const float *add,            \
             const __grid_constant__ adapter::Lora lora, int rows, int outputs, int inputs) {                            \
        NS_DYN_SMEM(shared);                                                                                             \
        NS_SHARED(u64, barriers, [2 * gemm_wgmma::STAGES]);                                                              \
        gemm_wgmma::product<store::KIND>(ns_smem(shared), ns_smem(barriers), &x, &w, y, add, lora, rows, outputs,        \
                                         inputs);                                                                        \
    }                                                                                                                    \
    NS_REGISTER(NAME);

NS_WGMMA(gemm_wgmma_bf16, BF16)
NS_WGMMA(gemm_wgmma_f32, F32)
NS_WGMMA(gemm_wgmma_add, ADD)

#endif
