// The embedding of each token: kernels/src/cuda/embed.rs has the contract. One block a token.
#include "device.cuh"
#include "rows.cuh"

// table (V, C) bf16, tokens (N) -> out (N, C) f32. A token outside the vocabulary gives NaN.
NS_KERNEL void __launch_bounds__(NS_ROW_THREADS)
embed_forward(float* NS_RESTRICT out, const bf16_t* NS_RESTRICT table, const u32* tokens, int vocab, int c) {
  ns_grid_next();
  if (!NS_PLANTED(17)) ns_grid_wait();
  const u32 token = tokens[blockIdx.x];
  if (NS_PLANTED(17)) ns_grid_wait();
  const bool known = token < (u32)vocab + NS_PLANTED(14);
  const u32x4* row = (const u32x4*)(table + (size_t)(known ? token : 0) * c);
  f32x4* to = (f32x4*)(out + (size_t)blockIdx.x * c);
  for (int i = threadIdx.x; i < c / 8; i += NS_ROW_THREADS) {
    u32x4 v = {0x7fff7fffu, 0x7fff7fffu, 0x7fff7fffu, 0x7fff7fffu};
    if (known) v = row[i];
    to[2 * i] = {ns_bf2f(v.x & 0xffff), ns_bf2f(v.x >> 16), ns_bf2f(v.y & 0xffff), ns_bf2f(v.y >> 16)};
    to[2 * i + 1] = {ns_bf2f(v.z & 0xffff), ns_bf2f(v.z >> 16), ns_bf2f(v.w & 0xffff), ns_bf2f(v.w >> 16)};
  }
}
NS_REGISTER(embed_forward);
