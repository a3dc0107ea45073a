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

// The stats of stored logits (rows, vocabulary), as `output_tiles` has them. A warp takes two tiles of a row: a lane of four in
// each of eight units. Grid: (tiles / 16, rows), 256 threads.
NS_KERNEL void __launch_bounds__(256)
    output_logit_tiles(const float* logits, const float* inverse_temperature, output::Stat* stats, int vocabulary) {
  using namespace output;
  const int lane = threadIdx.x & 31, row = blockIdx.y, tiles = (vocabulary + tile::COLUMNS - 1) / tile::COLUMNS;
  const int tile = (blockIdx.x * 8 + (threadIdx.x >> 5)) * 2 + (lane >> 4),
            c = tile * tile::COLUMNS + (lane >> 2 & 3) * 32;
  const int pairs = pairs_inside(c, vocabulary);
  const float scale = inverse_temperature[row] * LOG2_E,
              *from = logits + (long long)row * vocabulary + c + (lane & 3) * 2;
  float own[8];
#pragma unroll
  for (int j = 0; j < 8; j++) own[j] = j / 2 < pairs ? from[j / 2 * 8 + j % 2] : 0.0f;
  const Stat stat = unit(own, pairs, scale);
  Stat units[4];
#pragma unroll
  for (int i = 0; i < 4; i++) {
    units[i].max = ns_shfl(stat.max, (lane & 16) + i * 4);
    units[i].sum = ns_shfl(stat.sum, (lane & 16) + i * 4);
  }
  if ((lane & 15) == 0 && tile < tiles) stats[(long long)row * tiles + tile] = combine(units, scale);
}
NS_REGISTER(output_logit_tiles);

// From the tiles of a row to its normalizer {max, ln of the sum}: lane l of a warp adds tiles l, l + 32, … ascending, then the
// lanes in a tree. Grid: rows / 8, 256 threads.
NS_KERNEL void __launch_bounds__(256) output_normalizer(const output::Stat* stats, const float* inverse_temperature,
                                                        output::Stat* normalizer, int rows, int vocabulary) {
  using namespace output;
  const int lane = threadIdx.x & 31, row = blockIdx.x * 8 + (threadIdx.x >> 5);
  const int tiles = (vocabulary + tile::COLUMNS - 1) / tile::COLUMNS;
  if (row >= rows) return;
  const float scale = inverse_temperature[row] * LOG2_E;
  stats += (long long)row * tiles;
  float max = ns_u2f(0xff800000u), sum = 0.0f;
  for (int t = lane; t < tiles; t += 32) max = higher(max, stats[t].max);
#pragma unroll
  for (int m = 1; m < 32; m *= 2) max = higher(max, ns_shfl_xor(max, m));
  for (int t = lane; t < tiles; t += 32) sum = ns_fma(stats[t].sum, power(stats[t].max, max, scale), sum);
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
