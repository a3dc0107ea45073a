// Draws a token for each row of logits: kernels/src/cuda/sample.rs has the contract, host/policy/src/sample.rs the same
// on a CPU. A draw is a pure function of its row and its settings.
//
// Blocks share a row, a chunk of tokens each, and the last to be ready goes on for all. No sorting: a set of tokens that top-k or
// top-p leaves is all that weigh more than some weight, and of those that weigh as much the first few. Weights are positive floats,
// whose bits order as they do: the upper bits are a bin's number. What bins hold is counted exactly, in whole numbers; the bin of
// the bound is then looked through digit by digit. Start at the kernels, in their order: `sample_best`, `sample_bins`,
// `sample_top_k`, `sample_top_p`, `sample_token`.
#include "device.cuh"
#include "exp2.cuh"
#include "last.cuh"

namespace sample {

const int THREADS = 256, WARPS = THREADS / 32, EACH = 16, CHUNK = THREADS * EACH;
// Bins of weights by exponent and four bits of the fraction; the bits below that.
const int BINS = 2048, BELOW = 19;
// Tokens of a bin that are listed; of a fuller one the whole row is looked through.
const int LISTED = 8192;
const u32 INFINITY_BITS = 0x7f800000u, FRACTION = 0x7fffffu, NONE = 0xffffffffu;
const float LOG2E = 0x1.715476p+0f;

// As `kernels::cuda::sample::Draw`.
struct Draw {
  u64 seed, request, position;
  float temperature, top_p, min_p;
  u32 top_k;
};

struct alignas(8) Token { u32 bits, id; };

// The tokens that are left: heavier than `bits`, or as heavy and at most `id`.
struct Kept {
  u32 bits, id;
  NS_DEV_MEMBER bool has(u32 w, u32 i) const { return w > bits || (w == bits && i < id + !NS_PLANTED(12)); }
};

enum Bound { NO_BOUND, TOP_K, TOP_P };

// What the kernels tell each other about a row.
struct State {
  float max;
  u32 most_likely;
  Kept kept;
  u32 bin, bound;  // where the bound is that is looked for, and which
  u32 listed, ticket;
  double goal;  // what of that bin must be kept
};

// Where a row's own memory has what; `memory` is zero before the first row.
struct Space {
  State* state;
  u64* below;    // of each bin, the sum of the lower bits
  u32* count;    // of each bin, the tokens
  Token* best;   // of each chunk, the bits of the largest logit, and its id
  double* sums;  // of each chunk
  Token* list;
};

NS_DEV Space space(u64* memory, int vocab) {
  const int chunks = (vocab + CHUNK - 1) / CHUNK, listed = vocab < LISTED ? vocab : LISTED;
  u64* at = memory + (size_t)blockIdx.y * (sizeof(State) / 8 + BINS + BINS / 2 + 2 * chunks + listed);
  Space s;
  s.state = (State*)at;
  s.below = at + sizeof(State) / 8;
  s.count = (u32*)(s.below + BINS);
  s.best = (Token*)(s.count + BINS);
  s.sums = (double*)(s.best + chunks);
  s.list = (Token*)(s.sums + chunks);
  return s;
}

struct Shared {
  u64 bins[BINS / 2];
  double sum[WARPS];
  float max[WARPS];
  u32 id[WARPS], told, digit, base;
  double before;
};

// The bits of e^((logit − max) / T), 0 for what cannot be drawn.
struct Row {
  const float* logits;
  int vocab;
  float max, scale;
  NS_DEV_MEMBER u32 weigh(float logit) const {
    const float w = ns_exp2_low((logit - max) * scale * LOG2E);
    return w > 0.0f ? ns_f2u(w) : 0;
  }
  NS_DEV_MEMBER u32 weight(int id) const { return weigh(logits[id]); }
  // A temperature too small to divide by is greedy in all but name.
  NS_DEV_MEMBER bool is_drawn(u32 most_likely) const {
    const float infinity = ns_u2f(INFINITY_BITS);
    return scale < infinity && max < infinity && most_likely < (u32)vocab;
  }
};

NS_DEV Row row(const float* logits, int vocab, const State& state, const Draw& draw) {
  return {logits + (size_t)blockIdx.y * vocab, vocab, state.max, 1.0f / draw.temperature};
}

NS_DEV bool has_top_k(const Draw& draw, int vocab) { return draw.top_k > 0 && draw.top_k < (u32)vocab; }
NS_DEV bool has_top_p(const Draw& draw) { return draw.top_p < 1.0f; }

// Calls `f(weight, id)` for the block's chunk, 0 for what is past the end; all threads call as often.
template <class F> NS_DEV void each_of_chunk(const Row& row, F f) {
  float logits[EACH];
  const int first = blockIdx.x * CHUNK + threadIdx.x;
#pragma unroll
  for (int i = 0; i < EACH; i++) {
    const int id = first + i * THREADS;
    logits[i] = id < row.vocab ? row.logits[id] : -ns_u2f(INFINITY_BITS);
  }
#pragma unroll
  for (int i = 0; i < EACH; i++) f(i, row.weigh(logits[i]), (u32)(first + i * THREADS));
}

// What tokens of a weight's bin weigh is a whole number of this.
NS_DEV double unit(u32 bin) { return (double)ns_u2f(bin >> 4 << 23) * 0x1p-23; }

NS_DEV u64 fraction(u32 weight) { return FRACTION + 1 | (weight & FRACTION); }

// The weight of a bin, exactly.
NS_DEV double bin_sum(const Space& s, int bin) {
  return (double)(fraction((u32)bin << BELOW) * s.count[bin] + s.below[bin]) * unit(bin);
}

// Of `size` places the first by which the amounts of places ascending sum to `goal` and `share` of all of them, or NONE; and what
// those before it sum to. A thread adds its neighbouring places, then lanes, then warps.
template <class Amount>
NS_DEV u32 reach(int size, double goal, double share, Shared& s, double& before, double& total, Amount amount) {
  const int per = (size + THREADS - 1) / THREADS, lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  const int first = threadIdx.x * per, last = first + per < size ? first + per : size;
  double own = 0.0;
  for (int i = first; i < last; i++) own += amount(i);
  double end = own;
#pragma unroll
  for (int by = 1; by < 32; by *= 2) {
    const double lower = ns_shfl_up_f64(end, by);
    if (lane >= by) end += lower;
  }
  if (threadIdx.x == 0) s.digit = NONE;
  if (lane == 31) s.sum[warp] = end;
  __syncthreads();
  double base = 0.0;
  total = 0.0;
  for (int w = 0; w < WARPS; w++) {
    if (w < warp) base += s.sum[w];
    total += s.sum[w];
  }
  goal += share * total;
  const u32 reached = ns_ballot(base + end >= goal);
  if (lane == 0) s.id[warp] = reached;
  __syncthreads();
  bool is_first = reached << (31 - lane) == 0x80000000u;
  for (int w = 0; w < warp; w++) is_first = is_first && !s.id[w];
  if (is_first) {
    double sum = base + end - own, held = 0.0;
    u32 found = NONE;
    for (int i = first; i < last; i++) {
      const double next = amount(i);
      if (!(next > 0.0)) continue;
      sum += held;
      held = next;
      found = i;
      if (sum + next >= goal) break;
    }
    s.digit = found;
    s.before = sum;
  }
  if (!NS_PLANTED(4)) __syncthreads();
  before = s.before;
  const u32 place = s.digit;
  __syncthreads();
  return place;
}

// Begins the search for the bound of top-p among what top-k left: all of the bins above `bin`, `part` of that one.
NS_DEV void begin_top_p(const Space& space, const Draw& draw, u32 bin, double part, Shared& s) {
  double before, total;
  const u32 place = reach(BINS, 0.0, draw.top_p, s, before, total, [&](u32 place) {
    const u32 b = BINS - 1 - place;
    return b > bin ? bin_sum(space, b) : b == bin ? part : 0.0;
  });
  if (threadIdx.x > 0) return;
  space.state->bound = place == NONE ? NO_BOUND : TOP_P;
  space.state->bin = BINS - 1 - place;
  space.state->goal = (double)draw.top_p * total - before;
}

// Lists those of the block's chunk that are in the bin and kept.
NS_DEV void list_bin(const Space& space, const Row& row, const Kept& kept, u32 bin, Shared& s) {
  u32 weights[EACH], places[EACH];
  if (threadIdx.x == 0) s.digit = 0;
  __syncthreads();
  each_of_chunk(row, [&](int i, u32 w, u32 id) {
    weights[i] = w >> BELOW == bin && kept.has(w, id) ? w : 0;
    places[i] = weights[i] ? ns_add(&s.digit, 1) : 0;
  });
  __syncthreads();
  if (threadIdx.x == 0 && s.digit) s.base = ns_add(&space.state->listed, s.digit);
  __syncthreads();
  const u32 most = row.vocab < LISTED ? row.vocab : LISTED;
#pragma unroll
  for (int i = 0; i < EACH; i++) {
    const u32 to = s.base + places[i];
    if (weights[i] && to < most) space.list[to] = {weights[i], blockIdx.x * CHUNK + threadIdx.x + i * THREADS};
  }
}

// Calls `f(weight, id)` for each kept token of the bin.
template <class F> NS_DEV void each_of_bin(const Space& space, const Row& row, const Kept& kept, u32 bin, F f) {
  const u32 listed = space.state->listed;
  if (listed <= LISTED) {
    for (u32 i = threadIdx.x; i < listed; i += THREADS) f(space.list[i].bits, space.list[i].id);
    return;
  }
  for (int id = threadIdx.x; id < row.vocab; id += THREADS) {
    const u32 w = row.weight(id);
    if (w >> BELOW == bin && kept.has(w, id)) f(w, (u32)id);
  }
}

// One digit of a bound: `each(put)` calls `put(digit, amount)`; digits descend until the amounts times `scale` reach `goal`.
template <class Each>
NS_DEV u32 digit(int size, double goal, double scale, Shared& s, double& before, double& own, Each each) {
  for (int i = threadIdx.x; i < size; i += THREADS) s.bins[i] = 0;
  __syncthreads();
  each([&](u32 at, u64 amount) { ns_add(&s.bins[at], amount); });
  if (!NS_PLANTED(16)) __syncthreads();
  double total;
  const u32 place =
      reach(size, goal, 0.0, s, before, total, [&](u32 place) { return (double)s.bins[size - 1 - place] * scale; });
  // Rounding can leave a sliver after the last: then all of them are meant.
  const u32 found = place == NONE ? 0 : size - 1 - place;
  own = (double)s.bins[found] * scale;
  if (place == NONE) before = total - own;
  __syncthreads();
  return found;
}

// The lightest tokens of `kept` in the bin leave until what is left there is the smallest set, heaviest first and lower ids before
// higher, whose values sum to at least `goal`: a value is the weight, or 1.
template <bool WEIGHED>
NS_DEV Kept resolve(const Space& space, const Row& row, const Kept& kept, u32 bin, double goal, Shared& s) {
  const double scale = WEIGHED ? unit(bin) : 1.0;
  const auto value = [](u32 w) { return WEIGHED ? fraction(w) : (u64)1; };
  double before, own;
  const u32 upper = digit(1024, goal, scale, s, before, own, [&](auto put) {
    each_of_bin(space, row, kept, bin, [&](u32 w, u32) { put(w >> 9 & 1023, value(w)); });
  });
  goal -= before;
  const u32 lower = digit(512, goal, scale, s, before, own, [&](auto put) {
    each_of_bin(space, row, kept, bin, [&](u32 w, u32) {
      if ((w >> 9 & 1023) == upper) put(w & 511, value(w));
    });
  });
  goal -= before;
  const u32 bits = bin << BELOW | upper << 9 | lower;
  if (bits < kept.bits) return kept;
  // Of those that weigh as much, how many? The flipped ids ascend from the last.
  const double each = (double)value(bits) * scale;
  if (own - each < goal) return {bits, bits == kept.bits ? kept.id : (u32)row.vocab};
  u32 flipped = 0;
  for (int shift = 20; shift >= 0; shift -= 10) {
    const u32 found = digit(1024, goal, each, s, before, own, [&](auto put) {
      each_of_bin(space, row, kept, bin, [&](u32 w, u32 id) {
        const u32 other = 0x3fffffffu - id;
        if (w == bits && other >> shift >> 10 == flipped) put(other >> shift & 1023, 1);
      });
    });
    goal -= before;
    flipped = flipped << 10 | found;
  }
  return {bits, 0x3fffffffu - flipped};
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

// Walks the kept tokens by id until their weights exceed a share of their sum: by chunks, then by the warps' spans.
NS_DEV u32 walk(const Space& space, const Row& row, const Kept& kept, const Draw& draw, u32 most_likely, Shared& s) {
  const int warp = threadIdx.x >> 5, lane = threadIdx.x & 31, chunks = (row.vocab + CHUNK - 1) / CHUNK;
  double total = 0.0;
  for (int i = 0; i < chunks; i++) total += space.sums[i];
  double left = uniform(draw) * total;
  int chosen = part(space.sums, chunks, left), first = chosen * CHUNK, end = first + CHUNK;
  if (chosen < 0) return most_likely;
  if (end > row.vocab) end = row.vocab;
  for (int width = CHUNK / WARPS;; width /= WARPS) {
    double sum = 0.0;
    for (int id = first + warp * width + lane, last = first + (warp + 1) * width; id < last; id += 32) {
      const u32 w = id < end ? row.weight(id) : 0;
      if (w && kept.has(w, id)) sum += (double)ns_u2f(w);
    }
#pragma unroll
    for (int m = 16; m; m >>= 1) sum += ns_shfl_xor_f64(sum, m);
    if (lane == 0) s.sum[warp] = sum;
    if (!NS_PLANTED(11)) __syncthreads();
    chosen = part(s.sum, WARPS, left);
    __syncthreads();
    // Every sum above was of these, so one of them has weight.
    first += chosen * width;
    if (width == 1) return first;
  }
}

// For rows whose state says so: the bound, and after that of top-k the bin of top-p's.
template <Bound BOUND>
NS_DEV void narrow(u64* memory, const float* logits, const Draw* draws, int vocab) {
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
NS_KERNEL void __launch_bounds__(sample::THREADS, 2) sample_best(u64* memory, const float* NS_RESTRICT logits, int vocab) {
  using namespace sample;
  NS_SHARED(Shared, shared, [1]);
  Shared& s = shared[0];
  const Space own = space(memory, vocab);
  const float* from = logits + (size_t)blockIdx.y * vocab;
  // Only numbers above −∞ count; without one the id is `vocab`.
  float max = -ns_u2f(INFINITY_BITS), read[EACH];
  u32 id = vocab;
  const int first = blockIdx.x * CHUNK + threadIdx.x;
#pragma unroll
  for (int i = 0; i < EACH; i++) read[i] = first + i * THREADS < vocab ? from[first + i * THREADS] : max;
#pragma unroll
  for (int i = 0; i < EACH; i++)
    if (read[i] > max) max = read[i], id = first + i * THREADS;
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
NS_KERNEL void __launch_bounds__(sample::THREADS, 2)
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
  each_of_chunk(r, [&](int, u32 w, u32) {
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
NS_KERNEL void __launch_bounds__(sample::THREADS, 2)
    sample_top_k(u64* memory, const float* NS_RESTRICT logits, const sample::Draw* NS_RESTRICT draws, int vocab) {
  sample::narrow<sample::TOP_K>(memory, logits, draws, vocab);
}
NS_REGISTER(sample_top_k);

NS_KERNEL void __launch_bounds__(sample::THREADS, 2)
    sample_top_p(u64* memory, const float* NS_RESTRICT logits, const sample::Draw* NS_RESTRICT draws, int vocab) {
  sample::narrow<sample::TOP_P>(memory, logits, draws, vocab);
}
NS_REGISTER(sample_top_p);

// tokens (N); V where no token is possible.
NS_KERNEL void __launch_bounds__(sample::THREADS, 2)
    sample_token(u32* NS_RESTRICT tokens, u64* memory, const float* NS_RESTRICT logits,
                 const sample::Draw* NS_RESTRICT draws, int vocab) {
  using namespace sample;
  NS_SHARED(Shared, shared, [1]);
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
  each_of_chunk(r, [&](int, u32 w, u32 id) { sum += w && kept.has(w, id) ? (double)ns_u2f(w) : 0.0; });
#pragma unroll
  for (int m = 16; m; m >>= 1) sum += ns_shfl_xor_f64(sum, m);
  if ((threadIdx.x & 31) == 0) s.sum[threadIdx.x >> 5] = sum;
  __syncthreads();
  if (threadIdx.x == 0) {
    for (int w = 1; w < WARPS; w++) sum += s.sum[w];
    own.sums[blockIdx.x] = sum;
  }
  if (!ns_last(&own.state->ticket, gridDim.x, s.told)) return;
  const u32 token = walk(own, r, kept, draw, most_likely, s);
  if (threadIdx.x == 0) tokens[blockIdx.y] = token;
  // As it was before the row.
  if (has_top_k(draw, vocab) || has_top_p(draw))
    for (int i = threadIdx.x; i < BINS; i += THREADS) own.count[i] = 0, own.below[i] = 0;
}
NS_REGISTER(sample_token);
