// What output.cu and output_wgmma.cu share: the tree of a normalizer (contract C6), targets, and the gradient by logits.
//
// Knows nothing of how logits are made. Four neighbouring lanes hold 32 columns of a row, a `unit`; four units are a tile of 128
// tokens. Start at `unit`.
#pragma once
#include "device.cuh"
#include "exp2.cuh"

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

// The targets of all rows: those of row r are [first[r], first[r + 1]).
struct Targets {
  const int *first, *token;
};

// What the gradient by logits takes: log_prob = (logit - normalizer.max) * inverse_temperature - normalizer.sum.
struct Gradient {
  const float* inverse_temperature;
  const Stat* normalizer;
  Targets targets;
  const float* upstream;
  bf16_t* dlogits;  // (rows, part)
  int rows, part, from;
};

// Calls `f(row, column, unit, logits)` for each unit of a warp's part, which begins at (row, column): the lane's eight logits.
template <int MT, int NT, class F> NS_DEV void each_unit(float (&sums)[MT][NT][4], int row, int column, F f) {
  const int lane = threadIdx.x & 31;
#pragma unroll
  for (int i = 0; i < MT; i++)
#pragma unroll
    for (int half = 0; half < 2; half++)
#pragma unroll
      for (int u = 0; u < NT / 4; u++) {
        float own[8];
#pragma unroll
        for (int j = 0; j < 8; j++) own[j] = sums[i][u * 4 + j / 2][half * 2 + j % 2];
        f(row + i * 16 + half * 8 + (lane >> 2), column + u * 32, u, own);
      }
}

// The logits of a row's targets that are among the lane's of the unit at `column`.
NS_DEV void pick(const float (&own)[8], int row, int column, const Targets& targets, float* target_logit) {
  for (int t = targets.first[row]; t < targets.first[row + 1]; t++) {
    const int at = targets.token[t] - column - (threadIdx.x & 3) * 2;
#pragma unroll
    for (int j = 0; j < 8; j++)
      if (at == j / 2 * 8 + j % 2) target_logit[t] = own[j];
  }
}

// With G = sum of a row's upstream: (sum of upstream of the targets v - G * p_v) / temperature, rounded once, for the lane's
// logits of the unit at `column` of this part of the vocabulary.
NS_DEV void put_gradient(float (&own)[8], int row, int column, const Gradient& g) {
  if (row >= g.rows) return;
  const Stat n = g.normalizer[row];
  const float inverse = g.inverse_temperature[row];
  const int begin = g.targets.first[row], end = g.targets.first[row + 1], left = (threadIdx.x & 3) * 2;
  float total = 0.0f;
  for (int t = begin; t < end; t++) total += g.upstream[t];
#pragma unroll
  for (int j = 0; j < 8; j++) own[j] = -total * ns_exp2(((own[j] - n.max) * inverse - n.sum) * LOG2_E);
  for (int t = begin; t < end; t++) {
    const int at = g.targets.token[t] - g.from * !NS_PLANTED(132) - column - left;
#pragma unroll
    for (int j = 0; j < 8; j++)
      if (at == j / 2 * 8 + j % 2) own[j] += g.upstream[t];
  }
#pragma unroll
  for (int j = 0; j < 4; j++)
    if (column + j * 8 < g.part)
      *(u32*)(g.dlogits + (long long)row * g.part + column + j * 8 + left) =
          ns_pack(own[2 * j] * inverse, own[2 * j + 1] * inverse);
}

}  // namespace output
