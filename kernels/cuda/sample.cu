// Draws a token for each row of logits: kernels/src/cuda/sample.rs has the contract, host/policy/src/sample.rs the same
// on a CPU. One block a row; a draw is a pure function of its row and its settings.
//
// No sorting: a set of tokens that top-k or top-p leaves is all that weigh more than some weight, and of those that weigh
// as much the first few. Weights are positive floats, whose bits order as they do, so both bounds are found by narrowing
// a range sixteenfold in a pass over the row.
#include "device.cuh"
#include "exp2.cuh"

namespace sample {

const int THREADS = 512, WARPS = THREADS / 32, WAYS = 16;
const u32 INFINITY_BITS = 0x7f800000u, ONE_BITS = 0x3f800000u;
typedef double Ways[WAYS - 1];
const float LOG2E = 0x1.715476p+0f;

// As `kernels::cuda::sample::Draw`.
struct Draw {
  u64 seed, request, position;
  float temperature, top_p, min_p;
  u32 top_k;
};

struct Shared {
  double sum[WAYS][WARPS];
  float max[WARPS];
  u32 id[WARPS];
};

// The bits of e^((logit − max) / T), 0 for what cannot be drawn.
struct Row {
  const float* logits;
  int vocab;
  float max, scale;
  NS_DEV_MEMBER u32 weight(int id) const {
    const float w = ns_exp2_low((logits[id] - max) * scale * LOG2E);
    return w > 0.0f ? ns_f2u(w) : 0;
  }
};

// The tokens that are left: heavier than `bits`, or as heavy and at most `id`.
struct Kept {
  u32 bits, id;
  NS_DEV_MEMBER bool has(u32 w, u32 i) const { return w > bits || (w == bits && i < id + !NS_PLANTED(12)); }
};

// The sum over the block of each of `n` numbers, in the warp's tree and then the warps ascending.
template <int n>
NS_DEV void sums(double (&v)[n], Shared& s) {
#pragma unroll
  for (int i = 0; i < n; i++) {
#pragma unroll
    for (int m = 16; m; m >>= 1) v[i] += ns_shfl_xor_f64(v[i], m);
    if ((threadIdx.x & 31) == 0) s.sum[i][threadIdx.x >> 5] = v[i];
  }
  __syncthreads();
#pragma unroll
  for (int i = 0; i < n; i++) {
    v[i] = s.sum[i][0];
    for (int w = 1; w < WARPS; w++) v[i] += s.sum[i][w];
  }
  if (!NS_PLANTED(4)) __syncthreads();
}

// The largest b in [low, high) for which `reached`(Σ of `amount`(id, b) over the row) holds; it must hold for `low`, and
// the sums must not grow with b.
template <class Amount>
NS_DEV u32 last_reaching(u32 low, u32 high, int vocab, double goal, Shared& s, Amount amount) {
  while (high - low > 1) {
    const u32 step = (high - low + WAYS - 1) / WAYS;
    Ways v;
#pragma unroll
    for (int i = 0; i < WAYS - 1; i++) v[i] = 0.0;
    for (int id = threadIdx.x; id < vocab; id += THREADS) amount(id, low, step, v);
    sums(v, s);
    u32 next = low, above = high;
#pragma unroll
    for (int i = 0; i < WAYS - 1; i++) {
      const u32 bound = low + (u32)(i + 1) * step;
      if (bound >= high) continue;
      if (v[i] >= goal) next = bound;
      else if (bound < above) above = bound;
    }
    low = next;
    high = above;
  }
  return low;
}

// The lightest tokens of `kept` leave until what is left is the smallest set, heaviest first and lower ids before higher,
// whose `value`s sum to at least `goal`.
template <class Value>
NS_DEV Kept keep(const Row& row, Kept kept, double goal, Shared& s, Value value) {
  const u32 bits = last_reaching(kept.bits, ONE_BITS + 1, row.vocab, goal, s, [&](int id, u32 low, u32 step, Ways& v) {
    const u32 w = row.weight(id);
    if (!kept.has(w, id)) return;
    const double x = value(w);
#pragma unroll
    for (int i = 0; i < WAYS - 1; i++) v[i] += w >= low + (u32)(i + 1) * step ? x : 0.0;
  });
  // Of those that weigh `bits`, how many? What the heavier ones lack is reached by ids up to some id: the negated ids
  // ascend, so that the sums fall.
  const u32 top = (u32)row.vocab;
  const u32 flipped = last_reaching(0, top, row.vocab, goal, s, [&](int id, u32 low, u32 step, Ways& v) {
    const u32 w = row.weight(id);
    if (!kept.has(w, id) || w < bits) return;
    const double x = value(w);
#pragma unroll
    for (int i = 0; i < WAYS - 1; i++) {
      const u32 bound = low + (u32)(i + 1) * step;
      v[i] += w > bits || (bound < top && (u32)id <= top - 1 - bound) ? x : 0.0;
    }
  });
  const u32 id = top - 1 - flipped;
  return {bits, bits == kept.bits && id > kept.id ? kept.id : id};
}

// Philox 4x32-10: Salmon et al. 2011.
NS_DEV double uniform(const Draw& d) {
  u32 c0 = (u32)d.position, c1 = (u32)(d.position >> 32), c2 = (u32)d.request, c3 = (u32)(d.request >> 32);
  u32 k0 = (u32)d.seed, k1 = (u32)(d.seed >> 32);
  for (int round = 0; round < 10; round++) {
    const u32 low0 = 0xD2511F53u * c0, high0 = ns_mulhi(0xD2511F53u, c0);
    const u32 low1 = 0xCD9E8D57u * c2, high1 = ns_mulhi(0xCD9E8D57u, c2);
    c0 = high1 ^ c1 ^ k0;
    c1 = low1;
    c2 = high0 ^ c3 ^ k1;
    c3 = low0;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return (double)(((u64)c0 << 32 | c1) >> 11) / 9007199254740992.0;
}

// The largest logit and its id; the lowest id of equals. Only numbers above −∞ count; without one the id is `vocab`.
NS_DEV void best(const float* logits, int vocab, float& max, u32& id, Shared& s) {
  max = -ns_u2f(INFINITY_BITS);
  id = vocab;
  for (int i = threadIdx.x; i < vocab; i += THREADS)
    if (logits[i] > max) max = logits[i], id = i;
#pragma unroll
  for (int m = 16; m; m >>= 1) {
    const float other = ns_shfl_xor(max, m);
    const u32 at = ns_shfl_xor_u32(id, m);
    if (other > max || (other == max && at < id)) max = other, id = at;
  }
  if ((threadIdx.x & 31) == 0) s.max[threadIdx.x >> 5] = max, s.id[threadIdx.x >> 5] = id;
  if (!NS_PLANTED(3)) __syncthreads();
  for (int w = 0; w < WARPS; w++)
    if (s.max[w] > max || (s.max[w] == max && s.id[w] < id)) max = s.max[w], id = s.id[w];
}

// The weight of the ids from `first` that a warp sums, lanes taking every 32nd.
NS_DEV double span(const Row& row, const Kept& kept, int first, int end) {
  double sum = 0.0;
  for (int id = first + (threadIdx.x & 31); id < end; id += 32) {
    const u32 w = row.weight(id);
    if (kept.has(w, id)) sum += (double)ns_u2f(w);
  }
#pragma unroll
  for (int m = 16; m; m >>= 1) sum += ns_shfl_xor_f64(sum, m);
  return sum;
}

// Walks the kept tokens by id until their weights exceed `left`: first by the warps' spans, then by a warp's lanes.
NS_DEV u32 walk(const Row& row, const Kept& kept, const Draw& draw, u32 most_likely, Shared& s) {
  const int warp = threadIdx.x >> 5, lane = threadIdx.x & 31;
  int first = 0, end = row.vocab;
  double left = 0.0;
  for (int level = 0;; level++) {
    const int width = (end - first + WARPS - 1) / WARPS, from = first + warp * width;
    const double sum = span(row, kept, from, from + width < end ? from + width : end);
    __syncthreads();
    if (lane == 0) s.sum[0][warp] = sum;
    if (!NS_PLANTED(11)) __syncthreads();
    if (level == 0) {
      double total = 0.0;
      for (int w = 0; w < WARPS; w++) total += s.sum[0][w];
      left = uniform(draw) * total;
    }
    // Rounding can leave a sliver after the last that has weight: then that is meant.
    int chosen = -1;
    for (int w = 0; w < WARPS; w++) {
      if (!(s.sum[0][w] > 0.0)) continue;
      if (chosen >= 0) left -= s.sum[0][chosen];
      chosen = w;
      if (left < s.sum[0][w]) break;
    }
    if (chosen < 0) return most_likely;
    first += chosen * width;
    if (first + width < end) end = first + width;
    if (end - first > 64) continue;
    // Every thread does the same here.
    u32 found = most_likely;
    for (int id = first; id < end; id++) {
      const u32 w = row.weight(id);
      if (!kept.has(w, id)) continue;
      found = id;
      left -= (double)ns_u2f(w);
      if (left < 0.0) break;
    }
    return found;
  }
}

}  // namespace sample

// logits (N, V) f32, draws (N) -> tokens (N); V where no token is possible.
NS_KERNEL void __launch_bounds__(sample::THREADS)
sample_draw(u32* NS_RESTRICT tokens, const float* NS_RESTRICT logits, const sample::Draw* NS_RESTRICT draws, int vocab) {
  NS_SHARED(sample::Shared, shared, [1]);
  sample::Shared& s = shared[0];
  const sample::Draw draw = draws[blockIdx.x];
  const float* row_logits = logits + (size_t)blockIdx.x * vocab;
  float max;
  u32 most_likely;
  sample::best(row_logits, vocab, max, most_likely, s);
  const float scale = 1.0f / draw.temperature, infinity = ns_u2f(sample::INFINITY_BITS);
  // A temperature too small to divide by is greedy in all but name.
  if (!(scale < infinity && max < infinity) || most_likely == (u32)vocab) {
    if (threadIdx.x == 0) tokens[blockIdx.x] = most_likely;
    return;
  }
  const sample::Row row = {row_logits, vocab, max, scale};
  sample::Kept kept = {1, (u32)vocab};
  if (draw.top_k > 0 && draw.top_k < (u32)vocab)
    kept = sample::keep(row, kept, (double)draw.top_k, s, [](u32) { return 1.0; });
  if (draw.top_p < 1.0f) {
    double total[1] = {0.0};
    for (int id = threadIdx.x; id < vocab; id += sample::THREADS) {
      const u32 w = row.weight(id);
      if (kept.has(w, id)) total[0] += (double)ns_u2f(w);
    }
    sample::sums(total, s);
    kept = sample::keep(row, kept, (double)draw.top_p * total[0], s, [](u32 w) { return (double)ns_u2f(w); });
  }
  // The largest weight is 1.
  if (draw.min_p > 0.0f && ns_f2u(draw.min_p) > kept.bits) kept = {ns_f2u(draw.min_p), (u32)vocab};
  const u32 token = sample::walk(row, kept, draw, most_likely, s);
  if (threadIdx.x == 0) tokens[blockIdx.x] = token;
}
NS_REGISTER(sample_draw);
