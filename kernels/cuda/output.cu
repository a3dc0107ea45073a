// The last linear map fused with log-softmax and the choice of targets, and its gradient (sm_80 and later).
//
// Knows nothing of losses. Logits are f32 sums of the products in gemm.cu's order; training makes them tile by tile and keeps
// none, a decode step stores them. Either way the normalizer is the same tree (contract C6): 32 columns (a lane of four has 8,
// ascending, then the four lanes), four of these a tile of 128, all tiles. So a recorded log-prob has the bits of a trained one.
// Start at `unit` and `output_tiles`.
#include "device.cuh"
#include "exp2.cuh"
#include "tile.cuh"

namespace output {

constexpr float LOG2_E = 0x1.715476p+0f, LN_2 = 0x1.62e430p-1f;

// The largest of some logits, and the sum of the exponentials of what they are less than it, times 1 / temperature.
struct alignas(8) Stat {
    float max, sum;
};

NS_DEV float higher(float a, float b) { return a > b ? a : b; }

// e^((logit − max) / temperature); `scale` is log2(e) / temperature.
NS_DEV float power(float logit, float max, float scale) { return ns_exp2_low((logit - max) * scale); }

// `stats` as one, in ascending order. A part without logits is {−∞, 0}.
template <int N> NS_DEV Stat combine(const Stat (&stats)[N], float scale) {
    Stat all{stats[0].max, 0.0f};
#pragma unroll
    for (int i = 1; i < N; i++) all.max = higher(all.max, stats[i].max);
#pragma unroll
    for (int i = 0; i < N; i++) all.sum = ns_fma(stats[i].sum, power(stats[i].max, all.max, scale), all.sum);
    return all;
}

// 32 columns of one row, which four neighbouring lanes hold: pairs 8 columns apart, of which the first `pairs` are logits.
NS_DEV Stat unit(const float (&logits)[8], int pairs, float scale) {
    float max = ns_u2f(0xff800000u), sum = 0.0f;
#pragma unroll
    for (int i = 0; i < 8; i++)
        if (i / 2 < pairs) max = higher(max, logits[i]);
    max = higher(max, ns_shfl_xor(max, 1));
    max = higher(max, ns_shfl_xor(max, 2));
#pragma unroll
    for (int i = 0; i < 8; i++)
        if (i / 2 < pairs) sum += power(logits[i], max, scale);
    sum += ns_shfl_xor(sum, 1);
    sum += ns_shfl_xor(sum, 2);
    return Stat{max, sum};
}

// How many of a unit's four pairs, 8 columns apart, are inside of a vocabulary that is a multiple of 16.
NS_DEV int pairs_inside(int column, int vocabulary) {
    const int left = (vocabulary - column) / 8;
    return NS_PLANTED(131) || left > 4 ? 4 : left < 0 ? 0 : left;
}

// The logits of the block's tile.
NS_DEV void logits(float (&sums)[tile::MT][tile::NT][4], u32 shared, const bf16_t *hidden, const bf16_t *w, int rows,
                   int vocabulary, int width, int &row, int &column) {
    const tile::Matrix a{hidden, rows, width, width}, b{w, vocabulary, width, width};
    tile::place(blockIdx.x, (rows + tile::ROWS - 1) / tile::ROWS, (vocabulary + tile::COLUMNS - 1) / tile::COLUMNS, row, column);
    row *= tile::ROWS;
    column *= tile::COLUMNS;
    tile::each_pair(sums, 0, 0, [](int, int, float &first, float &second) { first = second = 0.0f; });
    tile::multiply<tile::ALONG>(sums, shared, a, b, row, column);
}

} // namespace output

// The stats of each row in each tile of 128 tokens, (rows, tiles), and the logit of each target: those of row r are
// [first[r], first[r + 1]). One block a tile of 128 x 128.
NS_KERNEL void __launch_bounds__(256, 2)
    output_tiles(const bf16_t *hidden, const bf16_t *w, const float *inverse_temperature, const int *first, const int *token,
                 float *target_logit, output::Stat *stats, int rows, int vocabulary, int width) {
    using namespace output;
    NS_DYN_SMEM(shared);
    NS_SHARED(Stat, units, [tile::ROWS][4]);
    const int lane = threadIdx.x & 31, tiles = (vocabulary + tile::COLUMNS - 1) / tile::COLUMNS;
    int row, column;
    float sums[tile::MT][tile::NT][4];
    logits(sums, ns_smem(shared), hidden, w, rows, vocabulary, width, row, column);
    const int c = column + tile::warp_column(), pairs = pairs_inside(c, vocabulary);
#pragma unroll
    for (int i = 0; i < tile::MT; i++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const int inside = tile::warp_row() + i * 16 + half * 8 + (lane >> 2), r = row + inside;
            float own[8];
#pragma unroll
            for (int j = 0; j < 8; j++) own[j] = sums[i][j / 2][half * 2 + j % 2];
            const Stat stat = unit(own, pairs, r < rows ? inverse_temperature[r] * LOG2_E : 0.0f);
            if ((lane & 3) == 0) units[inside][(c - column) >> 5] = stat;
            if (r >= rows) continue;
            for (int t = first[r]; t < first[r + 1]; t++) {
                const int at = token[t] - c - (lane & 3) * 2;
#pragma unroll
                for (int j = 0; j < 8; j++)
                    if (at == j / 2 * 8 + j % 2) target_logit[t] = own[j];
            }
        }
    if (!NS_PLANTED(130)) __syncthreads();
    const int r = row + threadIdx.x;
    if (threadIdx.x < tile::ROWS && r < rows)
        stats[(long long)r * tiles + column / tile::COLUMNS] =
            combine(units[threadIdx.x], inverse_temperature[r] * LOG2_E);
}
NS_REGISTER(output_tiles);

// The stats of stored logits (rows, vocabulary), as `output_tiles` has them. A warp takes two tiles of a row: a lane of four in
// each of eight units. Grid: (tiles / 16, rows), 256 threads.
NS_KERNEL void __launch_bounds__(256) output_logit_tiles(const float *logits, const float *inverse_temperature,
                                                         output::Stat *stats, int vocabulary) {
    using namespace output;
    const int lane = threadIdx.x & 31, row = blockIdx.y, tiles = (vocabulary + tile::COLUMNS - 1) / tile::COLUMNS;
    const int tile = (blockIdx.x * 8 + (threadIdx.x >> 5)) * 2 + (lane >> 4), c = tile * tile::COLUMNS + (lane >> 2 & 3) * 32;
    const int pairs = pairs_inside(c, vocabulary);
    const float scale = inverse_temperature[row] * LOG2_E, *from = logits + (long long)row * vocabulary + c + (lane & 3) * 2;
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
NS_KERNEL void __launch_bounds__(256) output_normalizer(const output::Stat *stats, const float *inverse_temperature,
                                                        output::Stat *normalizer, int rows, int vocabulary) {
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
NS_KERNEL void __launch_bounds__(256) output_log_probs(const output::Stat *normalizer, const float *inverse_temperature,
                                                       const int *first, const float *target_logit, float *log_prob, int rows) {
    const int row = blockIdx.x * 256 + threadIdx.x;
    if (row >= rows) return;
    const output::Stat n = normalizer[row];
    for (int t = first[row]; t < first[row + 1]; t++)
        log_prob[t] = (target_logit[t] - n.max) * inverse_temperature[row] - n.sum;
}
NS_REGISTER(output_log_probs);

// The targets' logits, from stored ones. A thread a row.
NS_KERNEL void __launch_bounds__(256) output_pick(const float *logits, const int *first, const int *token, float *target_logit,
                                                  int rows, int vocabulary) {
    const int row = blockIdx.x * 256 + threadIdx.x;
    if (row >= rows) return;
    for (int t = first[row]; t < first[row + 1]; t++) target_logit[t] = logits[(long long)row * vocabulary + token[t]];
}
NS_REGISTER(output_pick);

// The gradient by the logits of tokens [from, from + part), rounded to bf16, (rows, part): with G = Σ of a row's `upstream`,
// (Σ upstream of the targets v − G·p_v) / temperature. The logits are made again. `w` begins at token `from`; dhidden is
// the sum of the parts' products with w, parts ascending (`gemm_backward_f32`, then `gemm_backward_add`).
NS_KERNEL void __launch_bounds__(256, 2)
    output_gradient(const bf16_t *hidden, const bf16_t *w, const float *inverse_temperature, const output::Stat *normalizer,
                    const int *first, const int *token, const float *upstream, bf16_t *dlogits, int rows, int part, int width,
                    int from) {
    using namespace output;
    NS_DYN_SMEM(shared);
    const int lane = threadIdx.x & 31;
    int row, column;
    float sums[tile::MT][tile::NT][4];
    logits(sums, ns_smem(shared), hidden, w, rows, part, width, row, column);
    const int c = column + tile::warp_column(), left = (lane & 3) * 2;
#pragma unroll
    for (int i = 0; i < tile::MT; i++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const int r = row + tile::warp_row() + i * 16 + half * 8 + (lane >> 2);
            if (r >= rows) continue;
            const Stat n = normalizer[r];
            const float inverse = inverse_temperature[r];
            float total = 0.0f, own[8];
            for (int t = first[r]; t < first[r + 1]; t++) total += upstream[t];
#pragma unroll
            for (int j = 0; j < 8; j++) {
                const float log_prob = (sums[i][j / 2][half * 2 + j % 2] - n.max) * inverse - n.sum;
                own[j] = -total * ns_exp2(log_prob * LOG2_E);
            }
            for (int t = first[r]; t < first[r + 1]; t++) {
                const int at = token[t] - from * !NS_PLANTED(132) - c - left;
#pragma unroll
                for (int j = 0; j < 8; j++)
                    if (at == j / 2 * 8 + j % 2) own[j] += upstream[t];
            }
#pragma unroll
            for (int j = 0; j < 4; j++)
                if (c + j * 8 < part)
                    *(u32 *)(dlogits + (long long)r * part + c + j * 8 + left) =
                        ns_pack(own[2 * j] * inverse, own[2 * j + 1] * inverse);
        }
}
NS_REGISTER(output_gradient);
