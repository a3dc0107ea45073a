// The last linear map fused with log-softmax and the choice of targets, and its gradient (sm_80 and later).
//
// Knows nothing of losses. Logits are f32 sums of the products in gemm.cu's order; training makes them tile by tile and keeps
// none, a decode step stores them. Either way the normalizer is the same tree (contract C6): 32 columns (a lane of four has 8,
// ascending, then the four lanes), four of these a tile of 128, all tiles. So a recorded log-prob has the bits of a trained one.
// Start at `output_tiles`; the tree is in output.cuh.
#include "device.cuh"
#include "exp2.cuh"
#include "output.cuh"
#include "store.cuh"
#include "tile.cuh"

namespace output {

// Pairs of tiles of stored logits that a warp reads before it sums them.
constexpr int AT_ONCE = 4;

// The logits of the block's tile.
NS_DEV void logits(float (&sums)[tile::MT][tile::NT][4], u32 shared, const bf16_t* hidden, const bf16_t* w, int rows,
                   int vocabulary, int width, int& row, int& column) {
  const tile::Matrix a{hidden, rows, width, width}, b{w, vocabulary, width, width};
  tile::place(blockIdx.x, (rows + tile::ROWS - 1) / tile::ROWS, (vocabulary + tile::COLUMNS - 1) / tile::COLUMNS, row,
              column);
  row *= tile::ROWS;
  column *= tile::COLUMNS;
  store::clear(sums);
  tile::multiply<tile::ALONG>(sums, shared, a, b, row, column);
}

}  // namespace output

// The stats of each row in each tile of 128 tokens, (rows, tiles), and the logit of each target: those of row r are
// [first[r], first[r + 1]). One block a tile of 128 x 128.
NS_KERNEL void __launch_bounds__(256, 2)
    output_tiles(const bf16_t* hidden, const bf16_t* w, const float* inverse_temperature, const int* first,
                 const int* token, float* target_logit, output::Stat* stats, int rows, int vocabulary, int width) {
  using namespace output;
  NS_DYN_SMEM(shared);
  NS_SHARED(Stat, units, [tile::ROWS][4]);
  const int lane = threadIdx.x & 31, tiles = (vocabulary + tile::COLUMNS - 1) / tile::COLUMNS;
  int row, column;
  float sums[tile::MT][tile::NT][4];
  logits(sums, ns_smem(shared), hidden, w, rows, vocabulary, width, row, column);
  each_unit(sums, tile::warp_row(), tile::warp_column(), [&](int inside, int c, int, float(&own)[8]) {
    const int r = row + inside;
    const float scale = r < rows ? inverse_temperature[r] * LOG2_E : 0.0f;
    const Stat stat = unit(own, pairs_inside(column + c, vocabulary), scale);
    if ((lane & 3) == 0) units[inside][c >> 5] = stat;
  });
  pick(sums, row + tile::warp_row(), column + tile::warp_column(), rows, Targets{first, token}, target_logit);
  if (!NS_PLANTED(130)) __syncthreads();
  const int r = row + threadIdx.x;
  if (threadIdx.x < tile::ROWS && r < rows)
    stats[(long long)r * tiles + column / tile::COLUMNS] = combine(units[threadIdx.x], inverse_temperature[r] * LOG2_E);
}
NS_REGISTER(output_tiles);

// The stats of stored logits (rows, vocabulary), as `output_tiles` has them. A warp takes two tiles of a row at a time: a lane of four
// in each of eight units. Grid: (tiles / (16 · AT_ONCE), rows), 256 threads.
NS_KERNEL void __launch_bounds__(256)
    output_logit_tiles(const float* logits, const float* inverse_temperature, output::Stat* stats, int vocabulary) {
  using namespace output;
  const int lane = threadIdx.x & 31, row = blockIdx.y, tiles = (vocabulary + tile::COLUMNS - 1) / tile::COLUMNS;
  const float scale = inverse_temperature[row] * LOG2_E;
  const int first = (blockIdx.x * 8 * AT_ONCE + (threadIdx.x >> 5)) * 2 + (lane >> 4);
  float own[AT_ONCE][8];
#pragma unroll
  for (int i = 0; i < AT_ONCE; i++) {
    const int c = (first + i * 16) * tile::COLUMNS + (lane >> 2 & 3) * 32, pairs = pairs_inside(c, vocabulary);
    const float* from = logits + (long long)row * vocabulary + c + (lane & 3) * 2;
#pragma unroll
    for (int j = 0; j < 4; j++) {
      const u32x2 two = j < pairs ? *(const u32x2*)(from + j * 8) : u32x2{0, 0};
      own[i][2 * j] = ns_u2f(two.x);
      own[i][2 * j + 1] = ns_u2f(two.y);
    }
  }
#pragma unroll
  for (int i = 0; i < AT_ONCE; i++) {
    const int tile = first + i * 16, c = tile * tile::COLUMNS + (lane >> 2 & 3) * 32;
    const Stat stat = unit(own[i], pairs_inside(c, vocabulary), scale);
    Stat units[4];
#pragma unroll
    for (int u = 0; u < 4; u++) {
      units[u].max = ns_shfl(stat.max, (lane & 16) + u * 4);
      units[u].sum = ns_shfl(stat.sum, (lane & 16) + u * 4);
    }
    if ((lane & 15) == 0 && tile < tiles) stats[(long long)row * tiles + tile] = combine(units, scale);
  }
}
NS_REGISTER(output_logit_tiles);

// From the tiles of a row to its normalizer {max, ln of the sum}: lane l of a warp adds tiles l, l + 32, … ascending, then the
// lanes in a tree; what it adds, all of the block's warps made. A block a row.
NS_KERNEL void __launch_bounds__(256) output_normalizer(const output::Stat* stats, const float* inverse_temperature,
                                                        output::Stat* normalizer, int vocabulary) {
  using namespace output;
  constexpr int SOME = 1024;
  NS_SHARED(Stat, factors, [SOME]);  // a tile's sum, and what it is multiplied with
  NS_SHARED(float, most, [8]);
  const int lane = threadIdx.x & 31, row = blockIdx.x;
  const int tiles = (vocabulary + tile::COLUMNS - 1) / tile::COLUMNS;
  const float scale = inverse_temperature[row] * LOG2_E;
  stats += (long long)row * tiles;
  float max = ns_u2f(0xff800000u), sum = 0.0f;
  for (int t = threadIdx.x; t < tiles; t += 256) max = higher(max, stats[t].max);
#pragma unroll
  for (int m = 1; m < 32; m *= 2) max = higher(max, ns_shfl_xor(max, m));
  if (lane == 0) most[threadIdx.x >> 5] = max;
  if (!NS_PLANTED(133)) __syncthreads();
  for (int w = 0; w < 8; w++) max = higher(max, most[w]);
  for (int first = 0; first < tiles; first += SOME) {
    const int some = tiles - first < SOME ? tiles - first : SOME;
    for (int t = threadIdx.x; t < some; t += 256) {
      const Stat stat = stats[first + t];
      factors[t] = Stat{power(stat.max, max, scale), stat.sum};
    }
    if (!NS_PLANTED(134)) __syncthreads();
    if (threadIdx.x < 32)
      for (int t = lane; t < some; t += 32) sum = ns_fma(factors[t].sum, factors[t].max, sum);
    __syncthreads();
  }
  if (threadIdx.x >= 32) return;
#pragma unroll
  for (int m = 1; m < 32; m *= 2) sum += ns_shfl_xor(sum, m);
  if (lane == 0) normalizer[row] = Stat{max, ns_log2(sum) * LN_2};
}
NS_REGISTER(output_normalizer);

// log_prob[t] = ln p of target t; the rows' targets as in `output_tiles`. A thread a row.
NS_KERNEL void __launch_bounds__(256)
    output_log_probs(const output::Stat* normalizer, const float* inverse_temperature, const int* first,
                     const float* target_logit, float* log_prob, int rows) {
  const int row = blockIdx.x * 256 + threadIdx.x;
  if (row >= rows) return;
  const output::Stat n = normalizer[row];
  for (int t = first[row]; t < first[row + 1]; t++)
    log_prob[t] = (target_logit[t] - n.max) * inverse_temperature[row] - n.sum;
}
NS_REGISTER(output_log_probs);

// The targets' logits, from stored ones. A thread a row.
NS_KERNEL void __launch_bounds__(256) output_pick(const float* logits, const int* first, const int* token,
                                                  float* target_logit, int rows, int vocabulary) {
  const int row = blockIdx.x * 256 + threadIdx.x;
  if (row >= rows) return;
  for (int t = first[row]; t < first[row + 1]; t++) target_logit[t] = logits[(long long)row * vocabulary + token[t]];
}
NS_REGISTER(output_pick);

// log_prob[r] = ln p of the token that row r drew, NaN where that is none (not below the vocabulary). A thread a row.
NS_KERNEL void __launch_bounds__(256)
    output_drawn(const float* logits, const output::Stat* normalizer, const float* inverse_temperature, const u32* token,
                 float* log_prob, int rows, int vocabulary) {
  const int row = blockIdx.x * 256 + threadIdx.x;
  if (row >= rows) return;
  const output::Stat n = normalizer[row];
  const bool drawn = token[row] < (u32)vocabulary;
  const float logit = drawn ? logits[(long long)row * vocabulary + token[row]] : ns_u2f(0x7fc00000u);
  log_prob[row] = (logit - n.max) * inverse_temperature[row] - n.sum;
}
NS_REGISTER(output_drawn);

// The gradient by the logits of tokens [from, from + part), rounded to bf16, (rows, part): with G = Σ of a row's `upstream`,
// (Σ upstream of the targets v − G·p_v) / temperature. The logits are made again. `w` begins at token `from`; dhidden is
// the sum of the parts' products with w, parts ascending (`gemm_backward_f32`, then `gemm_backward_add`).
NS_KERNEL void __launch_bounds__(256, 2)
    output_gradient(const bf16_t* hidden, const bf16_t* w, const float* inverse_temperature,
                    const output::Stat* normalizer, const int* first, const int* token, const float* upstream,
                    bf16_t* dlogits, int rows, int part, int width, int from) {
  using namespace output;
  NS_DYN_SMEM(shared);
  int row, column;
  float sums[tile::MT][tile::NT][4];
  logits(sums, ns_smem(shared), hidden, w, rows, part, width, row, column);
  const Gradient gradient{inverse_temperature, normalizer, {first, token}, upstream, dlogits, rows, part, from};
  put_gradients(sums, row + tile::warp_row(), column + tile::warp_column(), gradient);
}
NS_REGISTER(output_gradient);
