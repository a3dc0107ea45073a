// The norm of heads, their rotation, and the writing of keys and values into the paged cache, in one pass with one
// rounding: kernels/src/cuda/rope.rs has the contract.
//
// One warp a head. With P = D / 64, a lane has the elements P·lane … P·lane + P − 1 of the lower half of its head and
// those of the upper half that they are rotated with.
#include "device.cuh"
#include "kv.cuh"
#include "rows.cuh"

namespace rope {

const int WARPS = 8;

// P neighbours of bf16.
template <int P>
NS_DEV void load(float (&to)[P], const bf16_t* from) {
#pragma unroll
  for (int j = 0; j < P; j++) to[j] = ns_bf2f(from[j]);
}
template <int P>
NS_DEV void load(float (&to)[P], const float* from) {
#pragma unroll
  for (int j = 0; j < P; j++) to[j] = from[j];
}
template <int P>
NS_DEV void store(bf16_t* to, const float (&from)[P]) {
  if (P == 1) {
    to[0] = ns_f2bf(from[0]);
  } else {
#pragma unroll
    for (int j = 0; j + 1 < P; j += 2) *(u32*)(to + j) = ns_pack(from[j], from[j + 1]);
  }
}

// 1 / rms: a lane's lower squares ascending, then its upper, then the warp's tree.
template <int P>
NS_DEV float inverse_rms(const float (&low)[P], const float (&high)[P], float eps) {
  float sum = 0.0f;
#pragma unroll
  for (int j = 0; j < P; j++) sum = ns_fma(low[j], low[j], sum);
#pragma unroll
  for (int j = 0; j < P; j++) sum = ns_fma(high[j], high[j], sum);
  return 1.0f / ns_sqrt(ns_warp_sum(sum) / (float)(64 * P) + eps);
}

template <int P>
NS_DEV void scale(float (&x)[P], const float* weight, float inverse) {
#pragma unroll
  for (int j = 0; j < P; j++) x[j] = weight[j] * (x[j] * inverse);
}

// sign = 1 rotates, −1 rotates back.
template <int P>
NS_DEV void rotate(float (&low)[P], float (&high)[P], const float* angles, float sign) {
#pragma unroll
  for (int j = 0; j < P; j++) {
    const float c = angles[j], s = sign * angles[32 * P + (NS_PLANTED(7) ? 0 : j)];
    const float a = low[j], b = high[j];
    low[j] = ns_fma(a, c, -(b * s));
    high[j] = ns_fma(b, c, a * s);
  }
}

// What the warp works on: heads of a row are its queries, keys, values.
struct Place { int row, head, lane; bool live; };
NS_DEV Place place(int rows, int heads, int kv_heads) {
  const int all = heads + 2 * kv_heads;
  const long warp = (long)blockIdx.x * WARPS + (threadIdx.x >> 5);
  return {(int)(warp / all), (int)(warp % all), (int)(threadIdx.x & 31), warp < (long)rows * all};
}

template <int D>
NS_DEV void forward(bf16_t* q, bf16_t* keys, bf16_t* values, const bf16_t* qkv, const float* q_norm, const float* k_norm,
                    const float* table, const int* positions, const int* sequences, const int* pages, int rows,
                    int heads, int kv_heads, int context, int all_sequences, int pages_ld, float eps) {
  const int P = D / 64;
  const Place at = place(rows, heads, kv_heads);
  if (!at.live) return;
  const bf16_t* from = qkv + ((size_t)at.row * (heads + 2 * kv_heads) + at.head) * D + at.lane * P;
  float low[P], high[P];
  load(low, from);
  load(high, from + D / 2);
  const int position = positions[at.row], sequence = sequences[at.row];
  // A row outside the table of angles has no place; its query shows it.
  const bool inside = position >= 0 && position < context;
  const bool is_value = at.head >= heads + kv_heads, is_query = at.head < heads;
  if (!is_value) {
    const float* norm = is_query ? q_norm : k_norm;
    if (norm) {
      const float inverse = inverse_rms(low, high, eps);
      scale(low, norm + at.lane * P, inverse);
      scale(high, norm + D / 2 + at.lane * P, inverse);
    }
    rotate(low, high, table + (size_t)(inside ? position : 0) * D + at.lane * P, inside ? 1.0f : ns_u2f(0x7fc00000u));
  }
  bf16_t* to = q + ((size_t)at.row * heads + at.head) * D;
  if (!is_query) {
    const bool owned = inside && sequence >= 0 && sequence < all_sequences && position < pages_ld * NS_KV_PAGE;
    if (!owned) return;
    const int kv_head = (at.head - heads) % kv_heads;
    const int* row = pages + (size_t)sequence * pages_ld;
    to = (is_value ? values : keys) + ns_kv_row(row, position + NS_PLANTED(6), kv_heads, kv_head, D);
  }
  store(to + at.lane * P, low);
  store(to + D / 2 + at.lane * P, high);
}

template <int D>
NS_DEV void backward(bf16_t* out, const float* dqkv, const bf16_t* qkv, const float* q_norm, const float* k_norm,
                     const float* table, const int* positions, int rows, int heads, int kv_heads, int context,
                     float eps) {
  const int P = D / 64;
  const Place at = place(rows, heads, kv_heads);
  if (!at.live) return;
  const size_t first = ((size_t)at.row * (heads + 2 * kv_heads) + at.head) * D + at.lane * P;
  float low[P], high[P];
  load(low, dqkv + first);
  load(high, dqkv + first + D / 2);
  const int position = positions[at.row];
  const bool inside = position >= 0 && position < context;
  if (at.head < heads + kv_heads) {
    rotate(low, high, table + (size_t)(inside ? position : 0) * D + at.lane * P, inside ? -1.0f : ns_u2f(0x7fc00000u));
    const float* norm = at.head < heads ? q_norm : k_norm;
    if (norm) {
      float x[P], y[P];
      load(x, qkv + first);
      load(y, qkv + first + D / 2);
      const float inverse = inverse_rms(x, y, eps);
      float dot = 0.0f;
#pragma unroll
      for (int j = 0; j < P; j++) low[j] *= norm[at.lane * P + j];
#pragma unroll
      for (int j = 0; j < P; j++) high[j] *= norm[D / 2 + at.lane * P + j];
#pragma unroll
      for (int j = 0; j < P; j++) dot = ns_fma(low[j], x[j], dot);
#pragma unroll
      for (int j = 0; j < P; j++) dot = ns_fma(high[j], y[j], dot);
      const float back = -(ns_warp_sum(dot) / (float)D) * inverse * inverse * inverse;
#pragma unroll
      for (int j = 0; j < P; j++) low[j] = ns_fma(low[j], inverse, x[j] * back);
#pragma unroll
      for (int j = 0; j < P; j++) high[j] = ns_fma(high[j], inverse, y[j] * back);
    }
  }
  store(out + first, low);
  store(out + first + D / 2, high);
}

}  // namespace rope

// qkv (N, (H + 2K)·D) bf16, norms (D) f32 or null, table (context, D) f32: cosines, then sines; positions, sequences (N)
// -> q (N, H·D) bf16, and the pools of keys and values. A negative sequence's keys and values are not written.
#define NS_ROPE_FORWARD(D)                                                                                             \
  NS_KERNEL void __launch_bounds__(32 * rope::WARPS) rope_forward_d##D(                                                \
      bf16_t* NS_RESTRICT q, bf16_t* NS_RESTRICT keys, bf16_t* NS_RESTRICT values, const bf16_t* NS_RESTRICT qkv,      \
      const float* NS_RESTRICT q_norm, const float* NS_RESTRICT k_norm, const float* NS_RESTRICT table,                \
      const int* NS_RESTRICT positions, const int* NS_RESTRICT sequences, const int* NS_RESTRICT pages, int rows,      \
      int heads, int kv_heads, int context, int all_sequences, int pages_ld, float eps) {                              \
    rope::forward<D>(q, keys, values, qkv, q_norm, k_norm, table, positions, sequences, pages, rows, heads, kv_heads,  \
                     context, all_sequences, pages_ld, eps);                                                           \
  }                                                                                                                    \
  NS_REGISTER(rope_forward_d##D)

// dqkv (N, (H + 2K)·D) f32, qkv as above -> out, the same shape, bf16.
#define NS_ROPE_BACKWARD(D)                                                                                            \
  NS_KERNEL void __launch_bounds__(32 * rope::WARPS) rope_backward_d##D(                                               \
      bf16_t* NS_RESTRICT out, const float* NS_RESTRICT dqkv, const bf16_t* NS_RESTRICT qkv,                           \
      const float* NS_RESTRICT q_norm, const float* NS_RESTRICT k_norm, const float* NS_RESTRICT table,                \
      const int* NS_RESTRICT positions, int rows, int heads, int kv_heads, int context, float eps) {                   \
    rope::backward<D>(out, dqkv, qkv, q_norm, k_norm, table, positions, rows, heads, kv_heads, context, eps);          \
  }                                                                                                                    \
  NS_REGISTER(rope_backward_d##D)

NS_ROPE_FORWARD(64);
NS_ROPE_FORWARD(128);
NS_ROPE_BACKWARD(64);
NS_ROPE_BACKWARD(128);
