// The products of gemm.cu on Hopper, with the same bits (sm_90a only): y = x·Wᵀ forward, dx = dy·W backward.
//
// Knows nothing of layers. The adapters' steps are mma.sync on wgmma's accumulator. K and N are multiples of 16. Boxes of the
// tensor maps, all with a swizzle of 128 bytes: x and dy 128 x 64; w 256 x 64 forward, 64 x 64 backward. Blocks of 384 threads take
// tile after tile; where others' work goes first, there is one for each tile. Start at `product`; the pipeline is in tile_wgmma.cuh.
#include "adapter.cuh"
#include "device.cuh"
#include "store.cuh"
#include "tile_wgmma.cuh"

#if defined(__CUDA_ARCH_FEAT_SM90_ALL) || defined(NS_EMU)

namespace gemm_wgmma {

template <tile::Terms TERMS, store::Kind KIND>
NS_DEV void product(u32 shared, u32 barriers, const ns_tmap* a, const ns_tmap* b, const adapter::Lora& lora, void* out,
                    const float* add, int rows, int columns, int terms) {
  using Sums = float[tile_wgmma::MT][tile_wgmma::NT][4];
  tile_wgmma::multiply<TERMS>(shared, barriers, a, b, rows, columns, terms, [&](Sums& sums, int row, int column) {
    adapter::add<TERMS == tile::ALONG>(sums, lora, row, column);
    store::finish<KIND>(sums, out, add, row, column, rows, columns);
  });
}

}  // namespace gemm_wgmma

// y (rows, outputs) = x (rows, inputs) · w (outputs, inputs)ᵀ + u·Bᵀ.
#define NS_FORWARD(NAME, KIND)                                                                                         \
  NS_KERNEL void __launch_bounds__(384, 1)                                                                             \
      NAME(const __grid_constant__ ns_tmap x, const __grid_constant__ ns_tmap w, void* y, const float* add,            \
           const __grid_constant__ adapter::Lora lora, int rows, int outputs, int inputs) {                            \
    NS_DYN_SMEM(shared);                                                                                               \
    NS_SHARED(u64, barriers, [2 * tile_wgmma::STAGES]);                                                                \
    gemm_wgmma::product<tile::ALONG, store::KIND>(ns_smem(shared), ns_smem(barriers), &x, &w, lora, y, add, rows,      \
                                                  outputs, inputs);                                                    \
  }                                                                                                                    \
  NS_REGISTER(NAME);

NS_FORWARD(gemm_wgmma_forward_bf16, BF16)
NS_FORWARD(gemm_wgmma_forward_f32, F32)
NS_FORWARD(gemm_wgmma_forward_add, ADD)

// dx (rows, inputs) = dy (rows, outputs) · w (outputs, inputs) + du·A.
#define NS_BACKWARD(NAME, KIND)                                                                                        \
  NS_KERNEL void __launch_bounds__(384, 1)                                                                             \
      NAME(const __grid_constant__ ns_tmap dy, const __grid_constant__ ns_tmap w, void* dx, const float* add,          \
           const __grid_constant__ adapter::Lora lora, int rows, int outputs, int inputs) {                            \
    NS_DYN_SMEM(shared);                                                                                               \
    NS_SHARED(u64, barriers, [2 * tile_wgmma::STAGES]);                                                                \
    gemm_wgmma::product<tile::DOWN, store::KIND>(ns_smem(shared), ns_smem(barriers), &dy, &w, lora, dx, add, rows,     \
                                                 inputs, outputs);                                                     \
  }                                                                                                                    \
  NS_REGISTER(NAME);

NS_BACKWARD(gemm_wgmma_backward_bf16, BF16)
NS_BACKWARD(gemm_wgmma_backward_f32, F32)
NS_BACKWARD(gemm_wgmma_backward_add, ADD)
#undef NS_FORWARD
#undef NS_BACKWARD
#endif
