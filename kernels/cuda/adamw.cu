// The gradient's norm and one step of the optimizer: kernels/src/cuda/adamw.rs has the contract.
#include "device.cuh"
#include "rows.cuh"

// Elements whose squares one block sums.
#define NS_NORM_CHUNK 8192

// The sum of squares of each chunk, in f64: thread t adds the elements t, t + 256, … of its chunk, ascending.
NS_KERNEL void __launch_bounds__(NS_ROW_THREADS)
adamw_squares(double* NS_RESTRICT sums, const float* NS_RESTRICT values, u64 len) {
  NS_SHARED(double, part, [NS_ROW_WARPS]);
  const u64 first = (u64)blockIdx.x * NS_NORM_CHUNK;
  const u64 rest = len - first, count = (rest < NS_NORM_CHUNK ? rest : NS_NORM_CHUNK) - NS_PLANTED(8);
  double sum = 0.0;
  for (int i = threadIdx.x; i < (int)count; i += NS_ROW_THREADS) {
    const double v = values[first + i];
    sum = ns_fma64(v, v, sum);
  }
  sum = ns_block_sum64(sum, part);
  if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}
NS_REGISTER(adamw_squares);

// The chunks' sums together, in the same way -> norm[0], and the factor that clips it, min(1, clip / (norm + 1e-6)).
NS_KERNEL void __launch_bounds__(NS_ROW_THREADS)
adamw_norm(double* NS_RESTRICT norm, float* NS_RESTRICT factor, const double* NS_RESTRICT sums, int chunks, float clip) {
  NS_SHARED(double, part, [NS_ROW_WARPS]);
  double sum = 0.0;
  for (int i = threadIdx.x; i < chunks; i += NS_ROW_THREADS) sum += sums[i];
  sum = ns_block_sum64(sum, part);
  if (threadIdx.x == 0) {
    const double root = sqrt(sum), scale = (double)clip / (root + 1e-6);
    norm[0] = root;
    factor[0] = scale < 1.0 ? (float)scale : 1.0f;
  }
}
NS_REGISTER(adamw_norm);

// The new parameters and moments. `factor` multiplies the gradients; `rounded`, if any, is given the new parameters in
// bf16. The operations and their order are those of kernels/src/adamw.rs: the same bits.
NS_KERNEL void __launch_bounds__(NS_ROW_THREADS)
adamw_step(float* NS_RESTRICT params, float* NS_RESTRICT first, float* NS_RESTRICT second, bf16_t* NS_RESTRICT rounded,
           const float* NS_RESTRICT grads, const float* NS_RESTRICT factor, u64 len, float lr, float beta1, float beta2,
           float eps, float decay, float step_size, float root_correction) {
  const u64 i = (u64)blockIdx.x * NS_ROW_THREADS + threadIdx.x;
  if (i >= len) return;
  const float g = grads[i] * factor[0];
  float p = params[i] * (1.0f - lr * decay), m = first[i], v = second[i];
  m = ns_fma(1.0f - beta1, g - m, m);
  v = ns_fma(1.0f - beta2, g * g, v * beta2);
  p = p - m * step_size / (ns_sqrt(v) / root_correction + eps);
  params[i] = p;
  first[i] = m;
  second[i] = v;
  if (rounded) rounded[i] = ns_f2bf(p);
}
NS_REGISTER(adamw_step);
