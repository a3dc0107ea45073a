// The norm of heads, their rotation, and the writing of keys and values into the paged cache, in one pass with one
// rounding: kernels/src/cuda/rope.rs has the contract.
//
// A block has one row's heads, a group of D / 16 lanes each, `AT_ONCE` of them before the next round. A lane has eight neighbours
// of the lower half of its head and the eight of the upper half that they are rotated with: accesses of 16 bytes.
#include "device.cuh"
#include "kv.cuh"
#include "rows.cuh"

namespace rope {

const int EACH = 8, THREADS = 256, AT_ONCE = 2;
typedef float Part[EACH];

NS_DEV void unpack(Part& to, const u32x4& v) {
  const u32 pairs[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
  for (int j = 0; j < EACH; j++) to[j] = ns_u2f(j % 2 ? pairs[j / 2] & 0xffff0000u : pairs[j / 2] << 16);
}
NS_DEV void load(Part& to, const bf16_t* from) { unpack(to, *(const u32x4*)from); }
NS_DEV void load(Part& to, const float* from) {
  const f32x4 a = ((const f32x4*)from)[0], b = ((const f32x4*)from)[1];
  const float all[EACH] = {a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w};
#pragma unroll
  for (int j = 0; j < EACH; j++) to[j] = all[j];
}
NS_DEV void store(bf16_t* to, const Part& from) {
  *(u32x4*)to = {ns_pack(from[0], from[1]), ns_pack(from[2], from[3]), ns_pack(from[4], from[5]),
                 ns_pack(from[6], from[7])};
}

// A lane's sum over its lower elements ascending, then its upper.
NS_DEV float dot(const Part& low, const Part& high, const Part& x, const Part& y) {
  float sum = 0.0f;
#pragma unroll
  for (int j = 0; j < EACH; j++) sum = ns_fma(low[j], x[j], sum);
#pragma unroll
  for (int j = 0; j < EACH; j++) sum = ns_fma(high[j], y[j], sum);
  return sum;
}

// Over the lanes of a head.
template <int D> NS_DEV float head_sum(float v) {
#pragma unroll
  for (int m = D / 32; m; m >>= 1) v += ns_shfl_xor(v, m);
  return v;
}

template <int D> NS_DEV float inverse_rms(const Part& low, const Part& high, float eps) {
  return 1.0f / ns_sqrt(head_sum<D>(dot(low, high, low, high)) / (float)D + eps);
}

// sign = 1 rotates, −1 rotates back.
NS_DEV void rotate(Part& low, Part& high, const Part& cosine, const Part& sine, float sign) {
#pragma unroll
  for (int j = 0; j < EACH; j++) {
    const float c = cosine[j], s = sign * sine[NS_PLANTED(7) ? 0 : j];
    const float a = low[j], b = high[j];
    low[j] = ns_fma(a, c, -(b * s));
    high[j] = ns_fma(b, c, a * s);
  }
}

// What is the same for all heads of the block's row.
template <int D> struct Row {
  int position, group, groups, first;  // a lane's first element
  bool inside;                         // of the table of angles
  Part cosine, sine;

  NS_DEV_MEMBER Row(const int* positions, const float* table, int context) {
    position = positions[blockIdx.x];
    inside = position >= 0 && position < context;
    group = threadIdx.x / (D / 16);
    groups = blockDim.x / (D / 16);
    first = threadIdx.x % (D / 16) * EACH;
    const float* angles = table + (size_t)(inside ? position : 0) * D + first;
    load(cosine, angles);
    load(sine, angles + D / 2);
  }
  // What a row outside the table has shows it.
  NS_DEV_MEMBER float sign(float sign) const { return inside ? sign : ns_u2f(0x7fc00000u); }
};

template <int D>
NS_DEV void forward(bf16_t* q, bf16_t* keys, bf16_t* values, const bf16_t* qkv, const float* q_norm, const float* k_norm,
                    const float* table, const int* positions, const int* sequences, const int* pages, int heads,
                    int kv_heads, int context, int all_sequences, int pages_ld, float eps) {
  const int all = heads + 2 * kv_heads, sequence = sequences[blockIdx.x];
  const Row<D> row(positions, table, context);
  const bool owned =
      row.inside && sequence >= 0 && sequence < all_sequences && row.position < pages_ld * NS_KV_PAGE;
  for (int round = row.group; round - row.group < all; round += AT_ONCE * row.groups) {
    u32x4 read[AT_ONCE][2];
    bf16_t* to[AT_ONCE];
#pragma unroll
    for (int i = 0; i < AT_ONCE; i++) {
      const int head = round + i * row.groups;
      const bf16_t* from = qkv + ((size_t)blockIdx.x * all + (head < all ? head : 0)) * D + row.first;
      read[i][0] = *(const u32x4*)from;
      read[i][1] = *(const u32x4*)(from + D / 2);
    }
    // The page is asked for before the heads have come.
#pragma unroll
    for (int i = 0; i < AT_ONCE; i++) {
      const int head = round + i * row.groups;
      to[i] = q + ((size_t)blockIdx.x * heads + head) * D;
      if (head >= heads && owned)
        to[i] = (head >= heads + kv_heads ? values : keys) +
                ns_kv_row(pages + (size_t)sequence * pages_ld, row.position + NS_PLANTED(6), kv_heads,
                          (head - heads) % kv_heads, D);
    }
#pragma unroll
    for (int i = 0; i < AT_ONCE; i++) {
      const int head = round + i * row.groups;
      const bool is_query = head < heads, is_value = head >= heads + kv_heads;
      const float* norm = is_query ? q_norm : k_norm;
      Part low, high;
      unpack(low, read[i][0]);
      unpack(high, read[i][1]);
      // Lanes of a warp have several heads: all of them take part in the sum.
      const float inverse = inverse_rms<D>(low, high, eps);
      if (head >= all) continue;
      if (!is_value) {
        if (norm) {
          Part w, v;
          load(w, norm + row.first);
          load(v, norm + D / 2 + row.first);
#pragma unroll
          for (int j = 0; j < EACH; j++) low[j] = w[j] * (low[j] * inverse);
#pragma unroll
          for (int j = 0; j < EACH; j++) high[j] = v[j] * (high[j] * inverse);
        }
        rotate(low, high, row.cosine, row.sine, row.sign(1.0f));
      }
      if (!is_query && !owned) continue;
      store(to[i] + row.first, low);
      store(to[i] + row.first + D / 2, high);
    }
  }
}

template <int D>
NS_DEV void backward(bf16_t* out, const float* dqkv, const bf16_t* qkv, const float* q_norm, const float* k_norm,
                     const float* table, const int* positions, int heads, int kv_heads, int context, float eps) {
  const int all = heads + 2 * kv_heads;
  const Row<D> row(positions, table, context);
  for (int round = 0; round < all; round += row.groups) {
    const int head = round + row.group;
    const size_t at = ((size_t)blockIdx.x * all + (head < all ? head : 0)) * D + row.first;
    Part low, high, x, y;
    load(low, dqkv + at);
    load(high, dqkv + at + D / 2);
    load(x, qkv + at);
    load(y, qkv + at + D / 2);
    const float* norm = head < heads ? q_norm : k_norm;
    const bool turned = head < heads + kv_heads, normed = turned && norm;
    if (turned) rotate(low, high, row.cosine, row.sine, row.sign(-1.0f));
    if (normed) {
      Part w, v;
      load(w, norm + row.first);
      load(v, norm + D / 2 + row.first);
#pragma unroll
      for (int j = 0; j < EACH; j++) low[j] *= w[j];
#pragma unroll
      for (int j = 0; j < EACH; j++) high[j] *= v[j];
    }
    const float inverse = inverse_rms<D>(x, y, eps), mean = head_sum<D>(dot(low, high, x, y)) / (float)D;
    if (normed) {
      const float back = -mean * inverse * inverse * inverse;
#pragma unroll
      for (int j = 0; j < EACH; j++) low[j] = ns_fma(low[j], inverse, x[j] * back);
#pragma unroll
      for (int j = 0; j < EACH; j++) high[j] = ns_fma(high[j], inverse, y[j] * back);
    }
    if (head >= all) continue;
    store(out + at, low);
    store(out + at + D / 2, high);
  }
}

}  // namespace rope

// qkv (N, (H + 2K)·D) bf16, norms (D) f32 or null, table (context, D) f32: cosines, then sines; positions, sequences (N)
// -> q (N, H·D) bf16, and the pools of keys and values. A negative sequence's keys and values are not written.
#define NS_ROPE_FORWARD(D)                                                                                             \
  NS_KERNEL void __launch_bounds__(rope::THREADS, 3) rope_forward_d##D(                                                \
      bf16_t* NS_RESTRICT q, bf16_t* NS_RESTRICT keys, bf16_t* NS_RESTRICT values, const bf16_t* qkv,      \
      const float* NS_RESTRICT q_norm, const float* NS_RESTRICT k_norm, const float* NS_RESTRICT table,                \
      const int* positions, const int* sequences, const int* pages, int heads,     \
      int kv_heads, int context, int all_sequences, int pages_ld, float eps) {                                         \
    ns_grid_next();                                                                                                    \
    ns_grid_wait();                                                                                                    \
    rope::forward<D>(q, keys, values, qkv, q_norm, k_norm, table, positions, sequences, pages, heads, kv_heads,        \
                     context, all_sequences, pages_ld, eps);                                                           \
  }                                                                                                                    \
  NS_REGISTER(rope_forward_d##D)

// dqkv (N, (H + 2K)·D) f32, qkv as above -> out, the same shape, bf16.
#define NS_ROPE_BACKWARD(D)                                                                                            \
  NS_KERNEL void __launch_bounds__(rope::THREADS, 3) rope_backward_d##D(                                               \
      bf16_t* NS_RESTRICT out, const float* NS_RESTRICT dqkv, const bf16_t* NS_RESTRICT qkv,                           \
      const float* NS_RESTRICT q_norm, const float* NS_RESTRICT k_norm, const float* NS_RESTRICT table,                \
      const int* NS_RESTRICT positions, int heads, int kv_heads, int context, float eps) {                             \
    rope::backward<D>(out, dqkv, qkv, q_norm, k_norm, table, positions, heads, kv_heads, context, eps);                \
  }                                                                                                                    \
  NS_REGISTER(rope_backward_d##D)

NS_ROPE_FORWARD(64);
NS_ROPE_FORWARD(128);
NS_ROPE_BACKWARD(64);
NS_ROPE_BACKWARD(128);
