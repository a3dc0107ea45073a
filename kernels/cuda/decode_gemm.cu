// The product y = x·Wᵀ for few rows (a decode step): each weight is read once, at the speed of memory (sm_80 and later).
//
// Knows nothing of layers. The weights are the tensor cores' first operand (16 outputs a warp), the rows of x the second; a deep
// ring of cp.async copies keeps bytes in flight. One warp walks all terms of its outputs, in the order of gemm.cu (C1, C2): the
// bits are the same. K and N are multiples of 16. Start at `product`.
#include "adapter.cuh"
#include "device.cuh"
#include "store.cuh"

namespace decode_gemm {

constexpr int DEPTH = 64;  // terms of a stage: rows of 128 bytes

// Address of a chunk of 8 elements in rows of 128 bytes.
NS_DEV u32 at(int row, int chunk) { return (u32)(row * 128 + ((chunk ^ (row & 7)) << 4)); }

// An adapter that a warp's outputs meet: its rows of B (for those outputs), its rows of x, its first column of u.
struct Meeting {
  const bf16_t* b;
  int first, end, rank, u;
};

template <int WARPS, int TOKENS> struct Plan {
  static constexpr int OUTPUTS = WARPS * 16;
  // Two 8 x 8 fragments of x are read at once, of which a plan for 8 rows drops the second.
  static constexpr int TOKEN_ROWS = TOKENS < 16 ? 16 : TOKENS;
  static constexpr int STAGE = (OUTPUTS + TOKEN_ROWS) * DEPTH * 2;
  static constexpr int STAGES = TOKENS <= 16 ? 8 : 6;
};

template <int WARPS, int TOKENS>
NS_DEV void fill(u32 stage, const bf16_t* x, const bf16_t* w, int output, int rows, int outputs, int inputs,
                 int depth) {
  using P = Plan<WARPS, TOKENS>;
  constexpr int THREADS = WARPS * 32;
#pragma unroll
  for (int i = 0; i < P::OUTPUTS * 8 / THREADS; i++) {
    const int c = threadIdx.x + i * THREADS, r = c >> 3, chunk = c & 7, k = depth + chunk * 8;
    if (output + r < outputs && k < inputs) ns_cp16(stage + at(r, chunk), w + (long long)(output + r) * inputs + k);
  }
#pragma unroll
  for (int i = 0; i < TOKENS * 8 / THREADS; i++) {
    const int c = threadIdx.x + i * THREADS, r = c >> 3, chunk = c & 7, k = depth + chunk * 8;
    if (r < rows && k < inputs) ns_cp16(stage + at(P::OUTPUTS + r, chunk), x + (long long)r * inputs + k);
  }
}

// The adapters of this call that have a part in the warp's 16 outputs, in the order of their rows; written by the warp's lanes.
template <int TOKENS> NS_DEV int meet(Meeting* list, const adapter::Lora& lora, int output) {
  int part = 0;
  while (part < lora.part_count && !(output >= lora.parts[part].first && output < lora.parts[part].end)) part++;
  if (part == lora.part_count) return 0;
  const int count = lora.segment_count < TOKENS ? lora.segment_count : TOKENS;
  for (int i = threadIdx.x & 31; i < count; i += 32) {
    const adapter::Segment segment = lora.segments[i];
    Meeting m{nullptr, segment.first, segment.first + segment.count, 0, lora.parts[part].u};
    if (segment.slot >= 0) {
      const adapter::Entry entry = lora.table[segment.slot * lora.stride + lora.parts[part].entry];
      m.rank = entry.rank;
      m.b = entry.b + (long long)(output - lora.parts[part].first) * entry.rank;
    }
    list[i] = m;
  }
  return count;
}

// Adds the adapters' part: B's rows are the first operand here, u's the second.
template <int NT> NS_DEV void add(float (&sums)[NT][4], const Meeting* list, int count, const bf16_t* u, int ldu) {
  const int lane = threadIdx.x & 31, g = lane >> 2, t2 = (lane & 3) * 2;
  for (int i = 0; i < count; i++) {
    const Meeting m = list[i];
    for (int r = 0; r < m.rank; r += 16) {
      u32 a[4];
#pragma unroll
      for (int q = 0; q < 4; q++) a[q] = adapter::pair_at(m.b + (g + (q & 1) * 8) * m.rank + r + (q >> 1) * 8 + t2);
#pragma unroll
      for (int j = 0; j < NT; j++) {
        if (m.end <= j * 8 || m.first >= j * 8 + 8 - NS_PLANTED(112)) continue;
        const int row = j * 8 + g;
        const bool inside = row >= m.first && row < m.end;
        const bf16_t* from = u + (long long)row * ldu + m.u + r + t2;
        const u32 b0 = inside ? adapter::pair_at(from) : 0, b1 = inside ? adapter::pair_at(from + 8) : 0;
        ns_mma(sums[j], a, b0, b1);
      }
    }
  }
}

template <store::Kind KIND> NS_DEV void put(void* out, const float* add, long long at, float sum) {
  if (KIND == store::BF16)
    ((bf16_t*)out)[at] = ns_f2bf(sum);
  else
    ((float*)out)[at] = KIND == store::ADD ? add[at] + sum : sum;
}

// y (rows, outputs) = x (rows, inputs) · w (outputs, inputs)ᵀ + u·Bᵀ; rows <= TOKENS, a block 16·WARPS outputs.
template <int WARPS, int TOKENS, store::Kind KIND>
NS_DEV void product(u32 shared, Meeting (*lists)[TOKENS], const bf16_t* x, const bf16_t* w, void* out,
                    const float* residual, const adapter::Lora& lora, int rows, int outputs, int inputs) {
  using P = Plan<WARPS, TOKENS>;
  constexpr int NT = TOKENS / 8;
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  const int first = blockIdx.x * P::OUTPUTS, output = first + warp * 16;
  const int steps = inputs / 16, stages = (steps + 3) / 4;
  float sums[NT][4];
#pragma unroll
  for (int j = 0; j < NT; j++) sums[j][0] = sums[j][1] = sums[j][2] = sums[j][3] = 0.0f;
#pragma unroll
  for (int s = 0; s < P::STAGES - 1; s++) {
    if (s < stages) fill<WARPS, TOKENS>(shared + s * P::STAGE, x, w, first, rows, outputs, inputs, s * DEPTH);
    ns_cp_commit();
  }
  // While the first copies are on their way. The barrier of the first stage makes the list visible to the whole warp.
  const int meetings = output < outputs ? meet<TOKENS>(lists[warp], lora, output) : 0;
  for (int s = 0; s < stages; s++) {
    ns_cp_wait<P::STAGES - 2 + NS_PLANTED(111)>();
    if (!NS_PLANTED(110)) __syncthreads();
    const int next = s + P::STAGES - 1;
    if (next < stages)
      fill<WARPS, TOKENS>(shared + next % P::STAGES * P::STAGE, x, w, first, rows, outputs, inputs, next * DEPTH);
    ns_cp_commit();
    const u32 stage = shared + s % P::STAGES * P::STAGE;
#pragma unroll
    for (int kk = 0; kk < 4; kk++) {
      if (4 * s + kk >= steps) break;
      u32 a[4];
      ns_ldsm4(a[0], a[1], a[2], a[3], stage + at(warp * 16 + (lane & 15), kk * 2 + (lane >> 4)));
#pragma unroll
      for (int j = 0; j < (NT + 1) / 2; j++) {
        u32 b0, b1, b2, b3;
        const int row = P::OUTPUTS + j * 16 + (lane & 7) + ((lane >> 4) << 3);
        ns_ldsm4(b0, b1, b2, b3, stage + at(row, kk * 2 + ((lane >> 3) & 1)));
        ns_mma(sums[2 * j], a, b0, b1);
        if (2 * j + 1 < NT) ns_mma(sums[(2 * j + 1) % NT], a, b2, b3);
      }
    }
  }
  if (output >= outputs) return;
  add<NT>(sums, lists[warp], meetings, lora.u, lora.ldu);
#pragma unroll
  for (int j = 0; j < NT; j++)
#pragma unroll
    for (int q = 0; q < 4; q++) {
      const int row = j * 8 + (lane & 3) * 2 + (q & 1), o = output + (q >> 1) * 8 + (lane >> 2);
      if (row < rows) put<KIND>(out, residual, (long long)row * outputs + o, sums[j][q]);
    }
}

}  // namespace decode_gemm

#define NS_DECODE(NAME, WARPS, TOKENS, KIND)                                                                           \
  NS_KERNEL void __launch_bounds__(WARPS * 32)                                                                         \
      NAME(const bf16_t* x, const bf16_t* w, void* y, const float* add, const __grid_constant__ adapter::Lora lora,    \
           int rows, int outputs, int inputs) {                                                                        \
    NS_DYN_SMEM(shared);                                                                                               \
    NS_SHARED(decode_gemm::Meeting, lists, [WARPS][TOKENS]);                                                           \
    decode_gemm::product<WARPS, TOKENS, store::KIND>(ns_smem(shared), lists, x, w, y, add, lora, rows, outputs,        \
                                                     inputs);                                                          \
  }                                                                                                                    \
  NS_REGISTER(NAME);

NS_DECODE(decode_gemm_8_bf16, 2, 8, BF16)
NS_DECODE(decode_gemm_8_f32, 2, 8, F32)
NS_DECODE(decode_gemm_8_add, 2, 8, ADD)
NS_DECODE(decode_gemm_16_bf16, 2, 16, BF16)
NS_DECODE(decode_gemm_16_f32, 2, 16, F32)
NS_DECODE(decode_gemm_16_add, 2, 16, ADD)
NS_DECODE(decode_gemm_32_bf16, 4, 32, BF16)
NS_DECODE(decode_gemm_32_f32, 4, 32, F32)
NS_DECODE(decode_gemm_32_add, 4, 32, ADD)
NS_DECODE(decode_gemm_64_bf16, 4, 64, BF16)
NS_DECODE(decode_gemm_64_f32, 4, 64, F32)
NS_DECODE(decode_gemm_64_add, 4, 64, ADD)
#undef NS_DECODE
