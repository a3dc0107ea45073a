// Root-mean-square norm of rows of the residual stream: kernels/src/cuda/rmsnorm.rs has the contract.
//
// One block a row. Thread t takes the chunks of four columns t, t + 256, …, its squares in one chain, ascending.
#include "device.cuh"
#include "rows.cuh"

const int KEPT = 4;

NS_DEV f32x4 load4(const float* row, int chunk) { return ((const f32x4*)row)[chunk]; }

NS_DEV float squares(f32x4 v, float sum) {
  sum = ns_fma(v.x, v.x, sum);
  sum = ns_fma(v.y, v.y, sum);
  sum = ns_fma(v.z, v.z, sum);
  return ns_fma(v.w, v.w, sum);
}

NS_DEV f32x4 times(f32x4 a, f32x4 b) { return {a.x * b.x, a.y * b.y, a.z * b.z, a.w * b.w}; }

NS_DEV float inverse_rms(float sum, int c, float eps) { return 1.0f / ns_sqrt(sum / (float)c + eps); }

// x (N, C) f32, weight (C) f32 -> out (N, C) bf16. With `add` (N, C) f32, x becomes x + add first.
NS_KERNEL void __launch_bounds__(NS_ROW_THREADS)
rmsnorm_forward(bf16_t* NS_RESTRICT out, float* NS_RESTRICT x, const float* add,
                const float* NS_RESTRICT weight, int c, float eps) {
  NS_SHARED(float, part, [NS_ROW_WARPS]);
  ns_grid_next();
  ns_grid_wait();
  const int chunks = c / 4;
  float* row = x + (size_t)blockIdx.x * c;
  float sum = 0.0f;
  for (int i = threadIdx.x; i < chunks; i += NS_ROW_THREADS) {
    f32x4 v = load4(row, i);
    if (add) {
      f32x4 a = load4(add + (size_t)blockIdx.x * c, i);
      v = {v.x + a.x, v.y + a.y, v.z + a.z, v.w + a.w};
      ((f32x4*)row)[i] = v;
    }
    sum = squares(v, sum);
  }
  const float inverse = inverse_rms(ns_block_sum(sum, part), c, eps);
  u32x2* to = (u32x2*)(out + (size_t)blockIdx.x * c);
  for (int i = threadIdx.x; i < chunks; i += NS_ROW_THREADS) {
    f32x4 v = load4(row, i), w = load4(weight, i);
    to[i] = {ns_pack(w.x * (v.x * inverse), w.y * (v.y * inverse)),
             ns_pack(w.z * (v.z * inverse), w.w * (v.w * inverse))};
  }
}
NS_REGISTER(rmsnorm_forward);

// dx (N, C) += the gradient by x, from dout (N, C) f32. With h = dout·weight and i = 1 / rms:
// i·h − x·i³·mean(h·x).
NS_KERNEL void __launch_bounds__(NS_ROW_THREADS)
rmsnorm_backward(float* NS_RESTRICT dx, const float* NS_RESTRICT x, const float* NS_RESTRICT weight,
                 const float* NS_RESTRICT dout, int c, float eps) {
  NS_SHARED(float, part, [NS_ROW_WARPS]);
  NS_SHARED(float, parts, [NS_ROW_WARPS]);
  const int chunks = c / 4;
  const float* row = x + (size_t)blockIdx.x * c;
  const float* drow = dout + (size_t)blockIdx.x * c;
  f32x4* to = (f32x4*)(dx + (size_t)blockIdx.x * c);
  float sum = 0.0f, dot = 0.0f;
  const auto add = [&](f32x4 v, f32x4 d) {
    sum = squares(v, sum);
    dot = ns_fma(d.x, v.x, dot);
    dot = ns_fma(d.y, v.y, dot);
    dot = ns_fma(d.z, v.z, dot);
    dot = ns_fma(d.w, v.w, dot);
  };
  // The first chunks of a thread stay in its registers: no row of a model that this was measured with has more.
  f32x4 values[KEPT], slopes[KEPT];
#pragma unroll
  for (int k = 0; k < KEPT; k++) {
    const int i = threadIdx.x + k * NS_ROW_THREADS;
    if (i < chunks) values[k] = load4(row, i), slopes[k] = load4(drow, i);
  }
#pragma unroll
  for (int k = 0; k < KEPT; k++) {
    const int i = threadIdx.x + k * NS_ROW_THREADS;
    if (i >= chunks) break;
    slopes[k] = times(slopes[k], load4(weight, i));
    add(values[k], slopes[k]);
  }
  for (int i = threadIdx.x + KEPT * NS_ROW_THREADS; i < chunks; i += NS_ROW_THREADS)
    add(load4(row, i), times(load4(drow, i), load4(weight, i)));
  f32x4 before[KEPT];
#pragma unroll
  for (int k = 0; k < KEPT; k++) {
    const int i = threadIdx.x + k * NS_ROW_THREADS;
    if (i < chunks) before[k] = to[i];
  }
  const float inverse = inverse_rms(ns_block_sum(sum, part), c, eps);
  const float back = -(ns_block_sum(dot, NS_PLANTED(5) ? part : parts) / (float)c) * inverse * inverse * inverse;
  const auto put = [&](int i, f32x4 v, f32x4 d, f32x4 o) {
    to[i] = {ns_fma(d.x, inverse, ns_fma(v.x, back, o.x)), ns_fma(d.y, inverse, ns_fma(v.y, back, o.y)),
             ns_fma(d.z, inverse, ns_fma(v.z, back, o.z)), ns_fma(d.w, inverse, ns_fma(v.w, back, o.w))};
  };
#pragma unroll
  for (int k = 0; k < KEPT; k++) {
    const int i = threadIdx.x + k * NS_ROW_THREADS;
    if (i < chunks) put(i, values[k], slopes[k], before[k]);
  }
  for (int i = threadIdx.x + KEPT * NS_ROW_THREADS; i < chunks; i += NS_ROW_THREADS)
    put(i, load4(row, i), times(load4(drow, i), load4(weight, i)), to[i]);
}
NS_REGISTER(rmsnorm_backward);
