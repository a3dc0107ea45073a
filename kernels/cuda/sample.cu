// Draws a token for each row of logits: kernels/src/cuda/sample.rs has the contract, host/policy/src/sample.rs the same
// on a CPU. A draw is a pure function of its row and its settings.
//
// Blocks share a row, a chunk of tokens each, and the last to be ready goes on for all. Start at the kernels, in their order:
// `sample_best`, `sample_bins`, `sample_top_k`, `sample_top_p`, `sample_token`; how a bound is found is in sample.cuh.
#include "device.cuh"
#include "last.cuh"
#include "sample.cuh"

namespace sample {

// Tokens that are walked one by one.
const int WALKED = 16;

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

// The largest over the block and its id, the lowest of equals.
NS_DEV void largest(float& max, u32& id, Shared& s) {
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
  __syncthreads();
}

// The part of `sums` in which the weights before and in it exceed `left`, which becomes what is left in it; −1 without weights.
NS_DEV int part(const double* sums, int count, double& left) {
  int chosen = -1;
  double before = 0.0;
  for (int i = 0; i < count; i++) {
    const double sum = sums[i];
    // Rounding can leave a sliver after the last that has weight: then that is meant.
    if (!(sum > 0.0)) continue;
    left -= before;
    chosen = i;
    before = sum;
    if (left < sum) break;
  }
  return chosen;
}

// Walks the kept tokens by id until their weights exceed a share of their sum: by chunks, by the warps' spans of one chunk, token by
// token. `weights` are shared.
NS_DEV u32 walk(const Space& space, const Row& row, const Kept& kept, const Draw& draw, u32 most_likely,
                float (&weights)[CHUNK], Shared& s) {
  const int warp = threadIdx.x >> 5, lane = threadIdx.x & 31, chunks = (row.vocab + CHUNK - 1) / CHUNK;
  double total = 0.0;
  for (int i = 0; i < chunks; i++) total += space.sums[i];
  double left = uniform(draw) * total;
  const int chunk = part(space.sums, chunks, left);
  if (chunk < 0) return most_likely;
  each_of_chunk(row, chunk, [&](int i, u32 w, u32 id) {
    weights[i * THREADS + threadIdx.x] = w && kept.has(w, id) ? ns_u2f(w) : 0.0f;
  });
  if (!NS_PLANTED(11)) __syncthreads();
  int first = 0, width = CHUNK / WARPS;
  for (; width >= WALKED; width /= WARPS) {
    double sum = 0.0;
    for (int i = lane; i < width; i += 32) sum += (double)weights[first + warp * width + i];
#pragma unroll
    for (int m = 16; m; m >>= 1) sum += ns_shfl_xor_f64(sum, m);
    if (lane == 0) s.sum[warp] = sum;
    __syncthreads();
    // Every sum above was of these, so one of them has weight.
    first += part(s.sum, WARPS, left) * width;
    __syncthreads();
  }
  u32 found = most_likely;
  for (int i = first; i < first + width * WARPS; i++) {
    if (!(weights[i] > 0.0f)) continue;
    found = chunk * CHUNK + i;
    left -= (double)weights[i];
    if (left < 0.0) break;
  }
  return found;
}

// For rows whose state says so: the bound, and after that of top-k the bin of top-p's.
template <Bound BOUND>
NS_DEV_MEMBER void narrow(u64* memory, const float* logits, const Draw* draws, int vocab) {
  NS_SHARED(Shared, shared, [1]);
  Shared& s = shared[0];
  const Space own = space(memory, vocab);
  if (own.state->bound != BOUND) return;
  const Draw draw = draws[blockIdx.y];
  const Row r = row(logits, vocab, *own.state, draw);
  const Kept before = own.state->kept;
  const u32 bin = own.state->bin;
  list_bin(own, r, before, bin, s);
  if (!ns_last(&own.state->ticket, gridDim.x, s.told)) return;
  const Kept kept = resolve<BOUND == TOP_P>(own, r, before, bin, own.state->goal, s);
  if (threadIdx.x == 0) own.state->bound = NO_BOUND;
  if (BOUND == TOP_K && has_top_p(draw)) {
    if (threadIdx.x == 0) s.bins[0] = 0;
    __syncthreads();
    u64 sum = 0;
    each_of_bin(own, r, before, bin, [&](u32 w, u32 id) { sum += kept.has(w, id) ? fraction(w) : 0; });
    ns_add(&s.bins[0], sum);
    __syncthreads();
    begin_top_p(own, draw, bin, (double)s.bins[0] * unit(bin), s);
  }
  __syncthreads();
  if (threadIdx.x == 0) own.state->kept = kept, own.state->listed = 0;
}

}  // namespace sample

// The largest logit of each row. All kernels: logits (N, V) f32, draws (N), a grid of (chunks, N).
NS_KERNEL void __launch_bounds__(sample::THREADS, 5) sample_best(u64* memory, const float* NS_RESTRICT logits, int vocab) {
  using namespace sample;
  NS_SHARED(Shared, shared, [1]);
  Shared& s = shared[0];
  const Space own = space(memory, vocab);
  // Only numbers above −∞ count; without one the id is `vocab`.
  float max = -ns_u2f(INFINITY_BITS);
  u32 id = vocab;
  each_logit(logits + (size_t)blockIdx.y * vocab, vocab, blockIdx.x, [&](int, float logit, u32 at) {
    if (logit > max) max = logit, id = at;
  });
  largest(max, id, s);
  if (threadIdx.x == 0) own.best[blockIdx.x] = {ns_f2u(max), id};
  if (!ns_last(&own.state->ticket, gridDim.x, s.told)) return;
  for (int i = threadIdx.x; i < gridDim.x; i += THREADS) {
    const Token other = own.best[i];
    const float found = ns_u2f(other.bits);
    if (found > max || (found == max && other.id < id)) max = found, id = other.id;
  }
  largest(max, id, s);
  if (threadIdx.x > 0) return;
  own.state->max = max;
  own.state->most_likely = id;
  own.state->kept = {1, (u32)vocab};
  own.state->bound = NO_BOUND;
}
NS_REGISTER(sample_best);

// For rows with a top-k or a top-p: what each bin holds, and in which the first of their bounds is.
NS_KERNEL void __launch_bounds__(sample::THREADS, 5)
    sample_bins(u64* memory, const float* NS_RESTRICT logits, const sample::Draw* NS_RESTRICT draws, int vocab) {
  using namespace sample;
  NS_SHARED(Shared, shared, [1]);
  NS_SHARED(u32, counts, [BINS]);
  NS_SHARED(u32, below, [BINS]);
  Shared& s = shared[0];
  const Space own = space(memory, vocab);
  const Draw draw = draws[blockIdx.y];
  const Row r = row(logits, vocab, *own.state, draw);
  if (!r.is_drawn(own.state->most_likely) || !(has_top_k(draw, vocab) || has_top_p(draw))) return;
  for (int i = threadIdx.x; i < BINS; i += THREADS) counts[i] = below[i] = 0;
  __syncthreads();
  each_of_chunk(r, blockIdx.x, [&](int, u32 w, u32) {
    if (!w) return;
    ns_add(&counts[w >> BELOW], 1);
    ns_add(&below[w >> BELOW], w & ((1u << BELOW) - 1));
  });
  __syncthreads();
  for (int i = threadIdx.x; i < BINS; i += THREADS) {
    if (!counts[i]) continue;
    ns_add(&own.count[i], counts[i]);
    ns_add(&own.below[i], (u64)below[i]);
  }
  if (!ns_last(&own.state->ticket, gridDim.x, s.told)) return;
  if (has_top_k(draw, vocab)) {
    double before, total;
    const u32 place = reach(BINS, (double)draw.top_k, 0.0, s, before, total,
                            [&](u32 place) { return (double)own.count[BINS - 1 - place]; });
    if (place != NONE) {
      if (threadIdx.x > 0) return;
      own.state->bound = TOP_K;
      own.state->bin = BINS - 1 - place;
      own.state->goal = (double)draw.top_k - before;
      return;
    }
  }
  if (has_top_p(draw)) begin_top_p(own, draw, 0, 0.0, s);
}
NS_REGISTER(sample_bins);

// The tokens that are left by the bound whose bin is known.
NS_KERNEL void __launch_bounds__(sample::THREADS, 4)
    sample_top_k(u64* memory, const float* NS_RESTRICT logits, const sample::Draw* NS_RESTRICT draws, int vocab) {
  sample::narrow<sample::TOP_K>(memory, logits, draws, vocab);
}
NS_REGISTER(sample_top_k);

NS_KERNEL void __launch_bounds__(sample::THREADS, 4)
    sample_top_p(u64* memory, const float* NS_RESTRICT logits, const sample::Draw* NS_RESTRICT draws, int vocab) {
  sample::narrow<sample::TOP_P>(memory, logits, draws, vocab);
}
NS_REGISTER(sample_top_p);

// tokens (N); V where no token is possible.
NS_KERNEL void __launch_bounds__(sample::THREADS, 5)
    sample_token(u32* NS_RESTRICT tokens, u64* memory, const float* NS_RESTRICT logits,
                 const sample::Draw* NS_RESTRICT draws, int vocab) {
  using namespace sample;
  NS_SHARED(Shared, shared, [1]);
  NS_SHARED(float, weights, [CHUNK]);
  Shared& s = shared[0];
  const Space own = space(memory, vocab);
  const Draw draw = draws[blockIdx.y];
  const u32 most_likely = own.state->most_likely;
  const Row r = row(logits, vocab, *own.state, draw);
  if (!r.is_drawn(most_likely)) {
    if (blockIdx.x == 0 && threadIdx.x == 0) tokens[blockIdx.y] = most_likely;
    return;
  }
  Kept kept = own.state->kept;
  // The largest weight is 1.
  if (draw.min_p > 0.0f && ns_f2u(draw.min_p) > kept.bits) kept = {ns_f2u(draw.min_p), (u32)vocab};
  double sum = 0.0;
  each_of_chunk(r, blockIdx.x, [&](int, u32 w, u32 id) { sum += w && kept.has(w, id) ? (double)ns_u2f(w) : 0.0; });
#pragma unroll
  for (int m = 16; m; m >>= 1) sum += ns_shfl_xor_f64(sum, m);
  if ((threadIdx.x & 31) == 0) s.sum[threadIdx.x >> 5] = sum;
  __syncthreads();
  if (threadIdx.x == 0) {
    for (int w = 1; w < WARPS; w++) sum += s.sum[w];
    own.sums[blockIdx.x] = sum;
  }
  if (!ns_last(&own.state->ticket, gridDim.x, s.told)) return;
  const u32 token = walk(own, r, kept, draw, most_likely, weights, s);
  if (threadIdx.x == 0) tokens[blockIdx.y] = token;
  // As it was before the row.
  if (has_top_k(draw, vocab) || has_top_p(draw))
    for (int i = threadIdx.x; i < BINS; i += THREADS) own.count[i] = 0, own.below[i] = 0;
}
NS_REGISTER(sample_token);
