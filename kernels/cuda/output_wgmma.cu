// The kernels of output.cu whose logits are products, on Hopper, with the same bits (sm_90a only).
//
// Boxes of the tensor maps: hidden 128 x 64, w 256 x 64, both with a swizzle of 128 bytes. Blocks of 384 threads, as in gemm_wgmma.cu.
// A warp has whole tiles of 128 tokens of its rows. Start at `output_wgmma_tiles`; the pipeline is in tile_wgmma.cuh.
#include "device.cuh"
#include "output.cuh"
#include "tile.cuh"
#include "tile_wgmma.cuh"

#if defined(__CUDA_ARCH_FEAT_SM90_ALL) || defined(NS_EMU)

namespace output {

using Sums = float[tile_wgmma::MT][tile_wgmma::NT][4];

}  // namespace output

// As `output_tiles`.
NS_KERNEL void __launch_bounds__(384, 1)
    output_wgmma_tiles(const __grid_constant__ ns_tmap hidden, const __grid_constant__ ns_tmap w,
                       const float* inverse_temperature, const int* first, const int* token, float* target_logit,
                       output::Stat* stats, int rows, int vocabulary, int width) {
  using namespace output;
  NS_DYN_SMEM(shared);
  NS_SHARED(u64, barriers, [2 * tile_wgmma::STAGES]);
  const Targets targets{first, token};
  const int tiles = (vocabulary + tile::COLUMNS - 1) / tile::COLUMNS;
  const auto end = [&](Sums& sums, int row, int column) {
    pick(sums, row, column, rows, targets, target_logit);
#pragma unroll
    for (int half = 0; half < 2; half++) {
      const int r = row + half * 8 + ((threadIdx.x & 31) >> 2);
      const float scale = r < rows ? inverse_temperature[r] * LOG2_E : 0.0f;
#pragma unroll
      for (int t = 0; t < tile_wgmma::NT / 16; t++) {
        const int c = column + t * tile::COLUMNS;
        Stat units[4];
#pragma unroll
        for (int u = 0; u < 4; u++) {
          float own[8];
#pragma unroll
          for (int j = 0; j < 8; j++) own[j] = sums[0][t * 16 + u * 4 + j / 2][half * 2 + j % 2];
          units[u] = unit(own, pairs_inside(c + u * 32, vocabulary), scale);
        }
        const Stat stat = combine(units, scale);
        if ((threadIdx.x & 3) == 0 && r < rows && c < vocabulary)
          stats[(long long)r * tiles + c / tile::COLUMNS] = stat;
      }
    }
  };
  tile_wgmma::multiply<tile::ALONG>(ns_smem(shared), ns_smem(barriers), &hidden, &w, rows, vocabulary, width, end);
}
NS_REGISTER(output_wgmma_tiles);

// As `output_gradient`; `w` is the map of the part's weights.
NS_KERNEL void __launch_bounds__(384, 1)
    output_wgmma_gradient(const __grid_constant__ ns_tmap hidden, const __grid_constant__ ns_tmap w,
                          const float* inverse_temperature, const output::Stat* normalizer, const int* first,
                          const int* token, const float* upstream, bf16_t* dlogits, int rows, int part, int width,
                          int from) {
  using namespace output;
  NS_DYN_SMEM(shared);
  NS_SHARED(u64, barriers, [2 * tile_wgmma::STAGES]);
  const Gradient gradient{inverse_temperature, normalizer, {first, token}, upstream, dlogits, rows, part, from};
  const auto end = [&](Sums& sums, int row, int column) {
    put_gradients(sums, row, column, gradient);
  };
  tile_wgmma::multiply<tile::ALONG>(ns_smem(shared), ns_smem(barriers), &hidden, &w, rows, part, width, end);
}
NS_REGISTER(output_wgmma_gradient);

#endif
