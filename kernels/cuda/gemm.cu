// Products on the tensor cores, for any number of rows (sm_80 and later): y = x·Wᵀ forward, dx = dy·W backward.
//
// Knows nothing of layers. Terms ascend in steps of 16 into one f32 accumulator per output, the adapters' steps follow (C1, C2),
// and there is one rounding at the store: decode_gemm.cu and gemm_wgmma.cu give the same bits. K and N are multiples of 16.
// Start at `product`; the tile is in tile.cuh.
#include "adapter.cuh"
#include "device.cuh"
#include "store.cuh"
#include "tile.cuh"

namespace gemm {

template <tile::Terms TERMS, store::Kind KIND>
NS_DEV void product(u32 shared, const tile::Matrix& a, const tile::Matrix& b, const adapter::Lora& lora, void* out,
                    const float* add, int columns) {
  const int tall = (a.rows + tile::ROWS - 1) / tile::ROWS, across = (columns + tile::COLUMNS - 1) / tile::COLUMNS;
  int row, column;
  tile::place(blockIdx.x, tall, across, row, column);
  row *= tile::ROWS;
  column *= tile::COLUMNS;
  const int r = row + tile::warp_row(), c = column + tile::warp_column();
  float sums[tile::MT][tile::NT][4];
  store::clear(sums);
  tile::multiply<TERMS>(sums, shared, a, b, row, column);
  adapter::add<TERMS == tile::ALONG>(sums, lora, r, c);
  store::finish<KIND>(sums, out, add, r, c, a.rows, columns);
}

}  // namespace gemm

// y (rows, outputs) = x (rows, inputs) · w (outputs, inputs)ᵀ + u·Bᵀ; one block a tile of 128 x 128.
#define NS_FORWARD(NAME, KIND)                                                                                         \
  NS_KERNEL void __launch_bounds__(256, 2)                                                                             \
      NAME(const bf16_t* x, const bf16_t* w, void* y, const float* add, const __grid_constant__ adapter::Lora lora,    \
           int rows, int outputs, int inputs) {                                                                        \
    NS_DYN_SMEM(shared);                                                                                               \
    const tile::Matrix a{x, rows, inputs, inputs}, b{w, outputs, inputs, inputs};                                      \
    gemm::product<tile::ALONG, store::KIND>(ns_smem(shared), a, b, lora, y, add, outputs);                             \
  }                                                                                                                    \
  NS_REGISTER(NAME);

NS_FORWARD(gemm_forward_bf16, BF16)
NS_FORWARD(gemm_forward_f32, F32)
NS_FORWARD(gemm_forward_add, ADD)

// dx (rows, inputs) = dy (rows, outputs) · w (outputs, inputs) + du·A.
#define NS_BACKWARD(NAME, KIND)                                                                                        \
  NS_KERNEL void __launch_bounds__(256, 2)                                                                             \
      NAME(const bf16_t* dy, const bf16_t* w, void* dx, const float* add, const __grid_constant__ adapter::Lora lora,  \
           int rows, int outputs, int inputs) {                                                                        \
    NS_DYN_SMEM(shared);                                                                                               \
    const tile::Matrix a{dy, rows, outputs, outputs}, b{w, outputs, inputs, inputs};                                   \
    gemm::product<tile::DOWN, store::KIND>(ns_smem(shared), a, b, lora, dx, add, inputs);                              \
  }                                                                                                                    \
  NS_REGISTER(NAME);

NS_BACKWARD(gemm_backward_bf16, BF16)
NS_BACKWARD(gemm_backward_f32, F32)
NS_BACKWARD(gemm_backward_add, ADD)
#undef NS_FORWARD
#undef NS_BACKWARD

// to = bf16(from), `count` elements (even): gradients of the residual stream become operands of products.
NS_KERNEL void __launch_bounds__(256) gemm_round(const float* from, bf16_t* to, int count) {
  const int at = (blockIdx.x * 256 + threadIdx.x) * 2;
  if (at < count) *(u32*)(to + at) = ns_pack(from[at], from[at + 1]);
}
NS_REGISTER(gemm_round);
