// The weights of a row of logits, their bins, and the bounds of top-k and top-p (sample.cu).
//
// Knows nothing of random numbers. No sorting: a set of tokens that top-k or top-p leaves is all that weigh more than some weight,
// and of those that weigh as much the first few. Weights are positive floats, whose bits order as they do: the upper bits are a
// bin's number. What bins hold is counted exactly, in whole numbers; the bin of the bound is then looked through digit by digit.
// Start at `Space`, what the blocks of a row share; `resolve` finds a bound.
#pragma once
#include "device.cuh"
#include "exp2.cuh"

namespace sample {

const int THREADS = 256, WARPS = THREADS / 32, EACH = 32, CHUNK = THREADS * EACH;
// Logits that a thread reads before it looks at them.
const int BATCH = 16;
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

// Calls `f(i, logit, id)` for a chunk, whose tokens i · THREADS + t are thread t's; the logit is −∞ past the end.
template <class F> NS_DEV void each_logit(const float* logits, int vocab, int chunk, F f) {
#pragma unroll 1
  for (int from = 0; from < EACH; from += BATCH) {
    float read[BATCH];
    const int first = chunk * CHUNK + from * THREADS + threadIdx.x;
#pragma unroll
    for (int i = 0; i < BATCH; i++) {
      const int id = first + i * THREADS;
      read[i] = id < vocab ? logits[id] : -ns_u2f(INFINITY_BITS);
    }
#pragma unroll
    for (int i = 0; i < BATCH; i++) f(from + i, read[i], (u32)(first + i * THREADS));
  }
}

// The same with weights: 0 past the end.
template <class F> NS_DEV void each_of_chunk(const Row& row, int chunk, F f) {
  each_logit(row.logits, row.vocab, chunk, [&](int i, float logit, u32 id) { f(i, row.weigh(logit), id); });
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
  u32 mine = 0;
  if (threadIdx.x == 0) s.digit = 0;
  __syncthreads();
  each_of_chunk(row, blockIdx.x, [&](int i, u32 w, u32 id) { mine |= (u32)(w >> BELOW == bin && kept.has(w, id)) << i; });
  u32 place = 0;
  for (u32 left = mine; left; left &= left - 1) place++;
  if (mine) place = ns_add(&s.digit, place);
  __syncthreads();
  if (threadIdx.x == 0 && s.digit) s.base = ns_add(&space.state->listed, s.digit);
  __syncthreads();
  const u32 most = row.vocab < LISTED ? row.vocab : LISTED;
  place += s.base;
  for (int i = 0; i < EACH; i++) {
    const u32 id = blockIdx.x * CHUNK + threadIdx.x + i * THREADS;
    if (!(mine >> i & 1)) continue;
    if (place < most) space.list[place] = {row.weight(id), id};
    place++;
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

}  // namespace sample
