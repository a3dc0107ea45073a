// The gated activation: kernels/src/cuda/swiglu.rs has the contract. Eight columns a thread.
#include "device.cuh"
#include "exp2.cuh"
#include "rows.cuh"

namespace swiglu {

const float LOG2E = 0x1.715476p+0f;

// 1 / (1 + e^-x).
NS_DEV float sigmoid(float x) { return 1.0f / (1.0f + ns_exp2(-x * LOG2E)); }

NS_DEV float forward(float gate, float up) { return gate * sigmoid(gate) * up; }

NS_DEV u32 both(u32 gate, u32 up) {
  return ns_pack(forward(ns_bf2f(gate & 0xffff), ns_bf2f(up & 0xffff)), forward(ns_bf2f(gate >> 16), ns_bf2f(up >> 16)));
}

// d silu(g)/dg = σ·(1 + g·(1 − σ)).
NS_DEV void backward(float gate, float up, float dout, float& dgate, float& dup) {
  const float s = sigmoid(gate);
  dgate = dout * up * (s * ns_fma(gate, 1.0f - s, 1.0f));
  dup = dout * (gate * s);
}

NS_DEV void both(u32& gate, u32& up, float d0, float d1) {
  float g0, g1, u0, u1;
  backward(ns_bf2f(gate & 0xffff), ns_bf2f(up & 0xffff), d0, g0, u0);
  backward(ns_bf2f(gate >> 16), ns_bf2f(up >> 16), d1, g1, u1);
  gate = ns_pack(g0, g1);
  up = ns_pack(u0, u1);
}

}  // namespace swiglu

// gate_up (N, 2F) bf16, gate first -> out (N, F) bf16. One block for each row and 8·NS_ROW_THREADS columns.
NS_KERNEL void __launch_bounds__(NS_ROW_THREADS)
swiglu_forward(bf16_t* NS_RESTRICT out, const bf16_t* gate_up, int f) {
  ns_grid_next();
  ns_grid_wait();
  const int i = blockIdx.y * NS_ROW_THREADS + threadIdx.x;
  if (i >= f / 8) return;
  const bf16_t* row = gate_up + (size_t)blockIdx.x * 2 * f;
  const u32x4 g = ((const u32x4*)row)[i], u = ((const u32x4*)(row + f - 8 * NS_PLANTED(13)))[i];
  ((u32x4*)(out + (size_t)blockIdx.x * f))[i] = {swiglu::both(g.x, u.x), swiglu::both(g.y, u.y), swiglu::both(g.z, u.z),
                                                 swiglu::both(g.w, u.w)};
}
NS_REGISTER(swiglu_forward);

// dout (N, F) f32, gate_up as above -> its gradient (N, 2F) bf16.
NS_KERNEL void __launch_bounds__(NS_ROW_THREADS)
swiglu_backward(bf16_t* NS_RESTRICT dgate_up, const bf16_t* NS_RESTRICT gate_up, const float* NS_RESTRICT dout, int f) {
  const int i = blockIdx.y * NS_ROW_THREADS + threadIdx.x;
  if (i >= f / 8) return;
  const bf16_t* row = gate_up + (size_t)blockIdx.x * 2 * f;
  u32x4 g = ((const u32x4*)row)[i], u = ((const u32x4*)(row + f))[i];
  const f32x4* d = (const f32x4*)(dout + (size_t)blockIdx.x * f);
  const f32x4 d0 = d[2 * i], d1 = d[2 * i + 1];
  swiglu::both(g.x, u.x, d0.x, d0.y);
  swiglu::both(g.y, u.y, d0.z, d0.w);
  swiglu::both(g.z, u.z, d1.x, d1.y);
  swiglu::both(g.w, u.w, d1.z, d1.w);
  bf16_t* to = dgate_up + (size_t)blockIdx.x * 2 * f;
  ((u32x4*)to)[i] = g;
  ((u32x4*)(to + f))[i] = u;
}
NS_REGISTER(swiglu_backward);
