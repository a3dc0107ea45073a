// 2^x and log2(x), the only ones in the kernels but for attention's weights (contract C5): the same bits in every kernel, on every architecture and
// on the emulator, because they are sums and products that each round once. The hardware's ex2.approx is not specified
// to the last bit. Compiled with `-fmad=false` (nvcc) and `-ffp-contract=off` (g++): fused is what says ns_fma.
#pragma once

// 2^x for x <= 127. 2^0 is exactly 1; below -126 the result is 0, also for -inf; NaN stays NaN. Above 127 the result is
// unspecified: softmax takes no power above 0, others call ns_exp2.
//
// x = n + f with |f| <= 1/2 by adding and taking away 1.5 * 2^23; 2^f = 1 + f * q(f), q minimax for the relative error
// (9.2e-8, with roundings 1.7e-7); 2^n by its exponent, by a product so that NaN gets through.
NS_DEV float ns_exp2_low(float x) {
  const float shifted = x + 12582912.0f;
  const float f = x - (shifted - 12582912.0f);
  float q = 0x1.5bba14p-10f;
  q = ns_fma(q, f, 0x1.3cea88p-7f);
  q = ns_fma(q, f, 0x1.c6b752p-5f);
  q = ns_fma(q, f, 0x1.ebf9bcp-3f);
  q = ns_fma(q, f, 0x1.62e42ap-1f);
  const float power = ns_fma(q, f, 1.0f) * ns_u2f((ns_f2u(shifted) << 23) + 0x3f800000u);
  return x < -126.0f ? 0.0f : power;
}

// 2^x for every x: ns_exp2_low where that is defined, +inf from 128 on.
NS_DEV float ns_exp2(float x) {
  if (x >= 128.0f) return ns_u2f(0x7f800000u);
  return x > 64.0f ? ns_exp2_low(x - 64.0f) * 0x1p64f : ns_exp2_low(x);
}

// log2(x) for x > 0; 0 gives -inf, inf gives inf, NaN and negative numbers give NaN. Denormals count as the least normal
// number.
//
// x = 2^e * (1 + u) with 1 + u between sqrt(1/2) and sqrt(2); log2(1 + u) = u * q(u), q minimax for the relative error
// (2.6e-8; with roundings 1.3e-7).
NS_DEV float ns_log2(float x) {
  const float infinity = ns_u2f(0x7f800000u);
  if (!(x > 0.0f && x < infinity)) return x == 0.0f ? -infinity : x < 0.0f ? ns_u2f(0x7fc00000u) : x;
  const unsigned int bits = ns_f2u(x < 0x1p-126f ? 0x1p-126f : x);
  const int e = (int)(bits - 0x3f3504f3u) >> 23;
  const float u = ns_u2f(bits - ((unsigned int)e << 23)) - 1.0f;
  float q = 0x1.01b6dcp-3f;
  q = ns_fma(q, u, -0x1.a87d0cp-3f);
  q = ns_fma(q, u, 0x1.b9c91ap-3f);
  q = ns_fma(q, u, -0x1.e95be6p-3f);
  q = ns_fma(q, u, 0x1.26d384p-2f);
  q = ns_fma(q, u, -0x1.715c4ep-2f);
  q = ns_fma(q, u, 0x1.ec73d6p-2f);
  q = ns_fma(q, u, -0x1.715470p-1f);
  q = ns_fma(q, u, 0x1.715476p+0f);
  return ns_fma(q, u, (float)e);
}
