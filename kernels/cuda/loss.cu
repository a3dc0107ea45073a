// The loss of samples over per-token streams and its derivative by each log-prob: kernels/src/cuda/loss.rs has the
// contract, host/trainer/src/loss.rs the meaning. One block a sample, all in f64.
#include "device.cuh"
#include "rows.cuh"

namespace loss {

enum { IMPORTANCE = 0, CISPO = 1, PPO = 2, GSPO = 3 };

const double KL_BOUND = 10.0;

struct Objective {
  double clip_low, clip_high, tis_cap, kl_beta;  // a negative cap is none
  double share;
  int kind;
  int pad;
};

struct Token { double logprob, old, behaviour, advantage; };

struct Surrogate { double loss, slope; bool clipped; };

NS_DEV double log_ratio(const Objective& o, const Token& t) { return t.logprob - (o.tis_cap >= 0.0 ? t.old : t.behaviour); }

NS_DEV double clamp(double x, double low, double high) { return x < low ? low : x > high ? high : x; }

NS_DEV Surrogate surrogate(const Objective& o, const Token& t, double sequence) {
  double advantage = t.advantage;
  if (o.tis_cap >= 0.0) {
    const double factor = exp(t.old - t.behaviour);
    advantage *= factor < o.tis_cap ? factor : o.tis_cap;
  }
  const double ratio = o.kind == GSPO ? sequence : exp(log_ratio(o, t));
  const double low = 1.0 - o.clip_low, high = 1.0 + o.clip_high;
  if (o.kind == IMPORTANCE) return {-advantage * ratio, -advantage * ratio, false};
  if (o.kind == CISPO) {
    const double slope = -advantage * (ratio < high ? ratio : high);
    return {slope * t.logprob, slope, ratio > high};
  }
  const double open = -advantage * ratio, bound = -advantage * clamp(ratio, low, high);
  const bool clipped = bound > open;
  return {clipped ? bound : open, clipped ? 0.0 : open, clipped};
}

// NaN stays.
NS_DEV double larger(double a, double b) { return a != a ? a : b != b ? b : a < b ? b : a; }

NS_DEV double block_max(double v, double (&part)[NS_ROW_WARPS]) {
#pragma unroll
  for (int m = 16; m; m >>= 1) v = larger(v, ns_shfl_xor_f64(v, m));
  if ((threadIdx.x & 31) == 0) part[threadIdx.x >> 5] = v;
  if (!NS_PLANTED(10)) __syncthreads();
  double most = part[0];
#pragma unroll
  for (int w = 1; w < NS_ROW_WARPS; w++) most = larger(most, part[w]);
  return most;
}

}  // namespace loss

// Streams (T) f32, `reference` may be null; starts (S + 1): sample s has the tokens starts[s] to starts[s + 1] − 1
// -> dlogprobs (T) f32; figures (S, 6) f64: surrogate, KL, Σ ratio, largest ratio, clipped tokens, tokens.
NS_KERNEL void __launch_bounds__(NS_ROW_THREADS, 1)
loss_samples(float* NS_RESTRICT dlogprobs, double* NS_RESTRICT figures, const float* NS_RESTRICT logprobs,
             const float* NS_RESTRICT old, const float* NS_RESTRICT reference, const float* NS_RESTRICT behaviour,
             const float* NS_RESTRICT advantage, const float* NS_RESTRICT weight, const int* NS_RESTRICT starts,
             loss::Objective o) {
  NS_SHARED(double, part, [8][NS_ROW_WARPS]);
  const int first = starts[blockIdx.x], end = starts[blockIdx.x + 1] + NS_PLANTED(9);
  auto token = [&](int t) { return loss::Token{logprobs[t], old[t], behaviour[t], advantage[t]}; };
  double total = 0.0;
  for (int t = first + threadIdx.x; t < end; t += NS_ROW_THREADS) total += (double)weight[t];
  total = ns_block_sum64(total, part[0]);
  const bool counts = total > 0.0;
  double mean = 0.0;
  if (o.kind == loss::GSPO)
    for (int t = first + threadIdx.x; t < end; t += NS_ROW_THREADS)
      if (counts && weight[t] > 0.0f) mean += (double)weight[t] / total * loss::log_ratio(o, token(t));
  const double sequence = exp(ns_block_sum64(mean, part[1]));
  double pg = 0.0, kl = 0.0, ratios = 0.0, most = 0.0, clipped = 0.0, tokens = 0.0;
  for (int t = first + threadIdx.x; t < end; t += NS_ROW_THREADS) {
    if (!counts || !(weight[t] > 0.0f)) {
      dlogprobs[t] = 0.0f;
      continue;
    }
    const loss::Token at = token(t);
    const double w = (double)weight[t] / total;
    const loss::Surrogate s = loss::surrogate(o, at, sequence);
    double dkl = 0.0;
    if (reference) {
      const double d = (double)reference[t] - at.logprob, bounded = loss::clamp(d, -loss::KL_BOUND, loss::KL_BOUND);
      const double e = exp(bounded);
      dkl = d == bounded ? 1.0 - e : 0.0;
      kl += w * (e - bounded - 1.0);
    }
    const double ratio = exp(at.logprob - at.behaviour);
    pg += w * s.loss;
    ratios += ratio;
    most = loss::larger(most, ratio);
    clipped += s.clipped ? 1.0 : 0.0;
    tokens += 1.0;
    dlogprobs[t] = (float)(o.share * w * (s.slope + o.kl_beta * dkl));
  }
  double* to = figures + (size_t)blockIdx.x * 6;
  const double sums[6] = {ns_block_sum64(pg, part[2]),       ns_block_sum64(kl, part[3]),
                          ns_block_sum64(ratios, part[4]),   loss::block_max(most, part[5]),
                          ns_block_sum64(clipped, part[6]),  ns_block_sum64(tokens, part[7])};
  if (threadIdx.x == 0)
#pragma unroll
    for (int i = 0; i < 6; i++) to[i] = sums[i];
}
NS_REGISTER(loss_samples);
