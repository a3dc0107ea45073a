// What a GPU's tensor cores do, measured: the same products by mma.sync and by wgmma, and how many a second.
// kernels/src/cuda/probe.rs has the contract. Not part of the engine.
#include "device.cuh"

namespace probe {

const int THREADS = 128, SIDE = 64, STEP = 16;

// A fragment of mma.sync: two neighbours of bf16.
NS_DEV u32 pair(const bf16_t* from) { return *(const u32*)from; }

}  // namespace probe

// a, b (T, 64, 16) bf16, c (T, 64, 64) f32 -> d = c + a·bᵀ, one k16 step for each tile. One block a tile, 16 rows a warp.
NS_KERNEL void __launch_bounds__(probe::THREADS)
probe_mma(float* NS_RESTRICT d, const bf16_t* NS_RESTRICT a, const bf16_t* NS_RESTRICT b, const float* NS_RESTRICT c) {
  const int lane = threadIdx.x & 31, row = (threadIdx.x >> 5) * 16 + (lane >> 2), column = (lane & 3) * 2;
  const bf16_t* at = a + (size_t)blockIdx.x * probe::SIDE * probe::STEP;
  const bf16_t* bt = b + (size_t)blockIdx.x * probe::SIDE * probe::STEP;
  const size_t tile = (size_t)blockIdx.x * probe::SIDE * probe::SIDE;
  const u32 left[4] = {probe::pair(at + row * 16 + column), probe::pair(at + (row + 8) * 16 + column),
                       probe::pair(at + row * 16 + column + 8), probe::pair(at + (row + 8) * 16 + column + 8)};
  for (int n = 0; n < probe::SIDE; n += 8) {
    const bf16_t* right = bt + (n + (lane >> 2)) * 16 + column;
    const size_t first = tile + row * probe::SIDE + n + column, second = first + 8 * probe::SIDE;
    float sums[4] = {c[first], c[first + 1], c[second], c[second + 1]};
    ns_mma(sums, left, probe::pair(right), probe::pair(right + 8));
    d[first] = sums[0];
    d[first + 1] = sums[1];
    d[second] = sums[2];
    d[second + 1] = sums[3];
  }
}
NS_REGISTER(probe_mma);

// The same by wgmma; nothing where there is none.
NS_KERNEL void __launch_bounds__(probe::THREADS)
probe_wgmma(float* NS_RESTRICT d, const bf16_t* NS_RESTRICT a, const bf16_t* NS_RESTRICT b, const float* NS_RESTRICT c) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL) || defined(NS_EMU)
  NS_DYN_SMEM(memory);
  const u32 base = ns_smem(memory);
  // Rows of 128 bytes, of which the step takes the first 32, in the swizzle that the descriptor says.
  for (int i = threadIdx.x; i < probe::SIDE * probe::STEP; i += probe::THREADS) {
    const int row = i / 16, k = i % 16;
    const u32 at = (row * 128 + k * 2) ^ ((row & 7) << 4);
    const size_t from = (size_t)blockIdx.x * probe::SIDE * probe::STEP + i;
    *(bf16_t*)(memory + at) = a[from];
    *(bf16_t*)(memory + probe::SIDE * 128 + at) = b[from];
  }
  const int lane = threadIdx.x & 31, row = (threadIdx.x >> 5) * 16 + (lane >> 2), column = (lane & 3) * 2;
  const size_t tile = (size_t)blockIdx.x * probe::SIDE * probe::SIDE;
  auto place = [&](int i) { return tile + (row + (i >> 1 & 1) * 8) * probe::SIDE + (i >> 2) * 8 + column + (i & 1); };
  float sums[32];
#pragma unroll
  for (int i = 0; i < 32; i++) sums[i] = c[place(i)];
  ns_fence_async();
  __syncthreads();
  ns_wg_fence();
  ns_wgmma_n64(sums, ns_desc(base), ns_desc(base + probe::SIDE * 128), 1);
  ns_wg_commit();
  ns_wg_wait<0>();
  ns_wg_hold(sums);
#pragma unroll
  for (int i = 0; i < 32; i++) d[place(i)] = sums[i];
#endif
}
NS_REGISTER(probe_wgmma);

// Products out of registers as fast as they come: eight chains a warp. out (blocks · 128) f32 keeps them alive.
NS_KERNEL void __launch_bounds__(probe::THREADS)
probe_peak_mma(float* NS_RESTRICT out, int steps) {
  float sums[8][4];
#pragma unroll
  for (int i = 0; i < 8; i++)
#pragma unroll
    for (int j = 0; j < 4; j++) sums[i][j] = 0.0f;
  // Numbers near 1 with all their bits in use: a core that multiplies zeros draws less power and runs faster.
  const u32 x = 0x3f803f80u + threadIdx.x * 0x00070005u;
  const u32 left[4] = {x, x ^ 0x00110022u, x ^ 0x00240013u, x ^ 0x00310045u};
  for (int s = 0; s < steps; s++)
#pragma unroll
    for (int i = 0; i < 8; i++) ns_mma(sums[i], left, x + i, x ^ i);
  float sum = 0.0f;
#pragma unroll
  for (int i = 0; i < 8; i++)
#pragma unroll
    for (int j = 0; j < 4; j++) sum += sums[i][j];
  out[(size_t)blockIdx.x * probe::THREADS + threadIdx.x] = sum;
}
NS_REGISTER(probe_peak_mma);

// The same by wgmma, m64 n256, four steps of 16 of one tile in shared memory again and again.
NS_KERNEL void __launch_bounds__(probe::THREADS)
probe_peak_wgmma(float* NS_RESTRICT out, int steps) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL) || defined(NS_EMU)
  NS_DYN_SMEM(memory);
  const u32 base = ns_smem(memory);
  for (int i = threadIdx.x; i < (64 + 256) * 32; i += probe::THREADS) ((u32*)memory)[i] = 0x3f803f80u + i % 1021 * 0x00030005u;
  float sums[128];
#pragma unroll
  for (int i = 0; i < 128; i++) sums[i] = 0.0f;
  ns_fence_async();
  __syncthreads();
  for (int s = 0; s < steps; s++) {
    ns_wg_fence();
#pragma unroll
    for (int k = 0; k < 4; k++) ns_wgmma_n256(sums, ns_desc(base + k * 32), ns_desc(base + 64 * 128 + k * 32), 1);
    ns_wg_commit();
    ns_wg_wait<0>();
    ns_wg_hold(sums);
  }
  float sum = 0.0f;
#pragma unroll
  for (int i = 0; i < 128; i++) sum += sums[i];
  out[(size_t)blockIdx.x * probe::THREADS + threadIdx.x] = sum;
#endif
}
NS_REGISTER(probe_peak_wgmma);
