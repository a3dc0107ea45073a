// Sums over a row by a whole block, in one fixed tree (contract C4): what a thread adds depends on its place alone.
#pragma once

// Threads of a block that treats one row.
#define NS_ROW_THREADS 256
#define NS_ROW_WARPS (NS_ROW_THREADS / 32)

// Over a warp; every lane has the sum.
NS_DEV float ns_warp_sum(float v) {
#pragma unroll
  for (int m = 16; m; m >>= 1) v += ns_shfl_xor(v, m);
  return v;
}

// Over a block of NS_ROW_THREADS; every thread has the sum. `part` is shared, and free again after the next barrier.
NS_DEV float ns_block_sum(float v, float (&part)[NS_ROW_WARPS]) {
  v = ns_warp_sum(v);
  if ((threadIdx.x & 31) == 0) part[threadIdx.x >> 5] = v;
  if (!NS_PLANTED(1)) __syncthreads();
  float sum = part[0];
#pragma unroll
  for (int w = 1; w < NS_ROW_WARPS; w++) sum += part[w];
  return sum;
}

// The same in f64.
NS_DEV double ns_warp_sum64(double v) {
#pragma unroll
  for (int m = 16; m; m >>= 1) v += ns_shfl_xor_f64(v, m);
  return v;
}

NS_DEV double ns_block_sum64(double v, double (&part)[NS_ROW_WARPS]) {
  v = ns_warp_sum64(v);
  if ((threadIdx.x & 31) == 0) part[threadIdx.x >> 5] = v;
  if (!NS_PLANTED(2)) __syncthreads();
  double sum = part[0];
#pragma unroll
  for (int w = 1; w < NS_ROW_WARPS; w++) sum += part[w];
  return sum;
}
