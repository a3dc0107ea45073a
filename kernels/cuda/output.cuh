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

// A lane's place of a token in a warp's part that begins at `column`: its pair and which of the two, or none.
template <int NT> NS_DEV bool is_own(int token, int column, int& place) {
  place = token - column - (threadIdx.x & 3) * 2;
  return place >= 0 && place < NT * 8 && (place & 6) == 0;
}

// The logits of the targets of all rows of a warp's part, which begins at (row, column).
template <int MT, int NT>
NS_DEV void pick(const float (&sums)[MT][NT][4], int row, int column, int rows, const Targets& targets,
                 float* target_logit) {
#pragma unroll
  for (int i = 0; i < 2 * MT; i++) {
    const int r = row + i * 8 + ((threadIdx.x & 31) >> 2);
    if (r >= rows) continue;
    for (int t = targets.first[r], end = targets.first[r + 1]; t < end; t++) {
      int place;
      if (!is_own<NT>(targets.token[t], column, place)) continue;
#pragma unroll
      for (int j = 0; j < NT; j++)
#pragma unroll
        for (int k = 0; k < 2; k++)
          if (place == j * 8 + k) target_logit[t] = sums[i / 2][j][i % 2 * 2 + k];
    }
  }
}

// With G = sum of a row's upstream: (sum of upstream of the targets v - G * p_v) / temperature, rounded once, for a warp's logits
// from (row, column) of this part of the vocabulary. A row's numbers are read once: what is stored might be them, for all that a
// compiler knows.
template <int MT, int NT>
NS_DEV void put_gradients(float (&sums)[MT][NT][4], int row, int column, const Gradient& g) {
  const int left = (threadIdx.x & 3) * 2;
#pragma unroll
  for (int i = 0; i < 2 * MT; i++) {
    const int r = row + i * 8 + ((threadIdx.x & 31) >> 2);
    if (r >= g.rows) continue;
    const Stat n = g.normalizer[r];
    const float inverse = g.inverse_temperature[r];
    const int begin = g.targets.first[r], end = g.targets.first[r + 1];
    float total = 0.0f;
    for (int t = begin; t < end; t++) total += g.upstream[t];
#pragma unroll
    for (int j = 0; j < NT; j++)
#pragma unroll
      for (int k = 0; k < 2; k++) {
        float& own = sums[i / 2][j][i % 2 * 2 + k];
        own = -total * ns_exp2_low(((own - n.max) * inverse - n.sum) * LOG2_E);
      }
    for (int t = begin; t < end; t++) {
      int place;
      if (!is_own<NT>(g.targets.token[t] - g.from * !NS_PLANTED(132), column, place)) continue;
      const float upstream = g.upstream[t];
#pragma unroll
      for (int j = 0; j < NT; j++)
#pragma unroll
        for (int k = 0; k < 2; k++)
          if (place == j * 8 + k) sums[i / 2][j][i % 2 * 2 + k] += upstream;
    }
    u32* to = (u32*)(g.dlogits + (long long)r * g.part + column + left);
#pragma unroll
    for (int j = 0; j < NT; j++)
      if (column + j * 8 < g.part)
        to[j * 4] = ns_pack(sums[i / 2][j][i % 2 * 2] * inverse, sums[i / 2][j][i % 2 * 2 + 1] * inverse);
  }
}

}  // namespace output
