// One step of a tensor core, bit for bit as a published model has it (MMA-Sim, arXiv 2511.10909): bf16 products and an f32
// accumulator. On Hopper `mma.sync` m16n8k16 and `wgmma` k16 are the same operation there.
//
// The products are exact. They and the accumulator are aligned to the largest exponent among them (a product's is the sum of its
// factors'), cut off, towards zero, behind a number of fraction bits of it, and summed exactly; the sum is cut off to f32. No GPU
// has confirmed it here. Start at `exact_step`.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>

namespace emu {

// Products that are summed at once, and fraction bits that are kept.
struct Model {
  int terms, fraction;
};
const Model HOPPER = {16, 25}, AMPERE = {8, 24};

// A number without its sign: significand * 2^(exponent - bits), bits being those behind the point.
struct Parts {
  int64_t significand;
  int exponent;
  bool negative;
};

inline Parts parts(float x) {
  uint32_t u;
  memcpy(&u, &x, 4);
  const int biased = u >> 23 & 255;
  const int64_t fraction = u & 0x7fffff;
  return {biased ? fraction | 1 << 23 : fraction, biased ? biased - 127 : -126, (u >> 31) != 0};
}

// significand * 2^(-shift), towards zero.
inline int64_t shifted(int64_t significand, int shift) {
  if (significand == 0) return 0;
  if (shift <= 0) return significand << -shift;
  return shift > 62 ? 0 : significand >> shift;
}

inline float towards_zero(int64_t sum, int exponent) {
  if (sum == 0) return 0.0f;
  const bool negative = sum < 0;
  uint64_t magnitude = negative ? -(uint64_t)sum : (uint64_t)sum;
  // To 24 significant bits, or fewer where the result is denormal.
  const int width = 64 - __builtin_clzll(magnitude);
  int cut = width - 24;
  if (exponent + cut < -149) cut = -149 - exponent;
  if (cut > 0) magnitude = cut > 63 ? 0 : magnitude >> cut << cut;
  const double value = std::ldexp((double)magnitude, exponent);
  const float result = value > 3.4028234663852886e38 ? INFINITY : (float)value;
  return negative ? -result : result;
}

// c + sum of a[k] * b[k * stride]; a and b hold bf16 numbers.
inline float exact_sum(Model model, float c, const float* a, const float* b, int stride) {
  bool finite = std::isfinite(c);
  float plain = c;
  for (int k = 0; k < model.terms; k++) {
    finite = finite && std::isfinite(a[k]) && std::isfinite(b[k * stride]);
    plain += a[k] * b[k * stride];
  }
  // Infinities and what is not a number go the way of any addition.
  if (!finite) return plain;
  const Parts start = parts(c);
  int64_t significand[16];
  int exponent[16], largest = start.exponent;
  for (int k = 0; k < model.terms; k++) {
    const Parts x = parts(a[k]), y = parts(b[k * stride]);
    // bf16 has 7 bits behind the point: the others of f32 are zero.
    significand[k] = (x.significand >> 16) * (y.significand >> 16);
    exponent[k] = x.exponent + y.exponent;
    if (significand[k] && exponent[k] > largest) largest = exponent[k];
    if (x.negative != y.negative) significand[k] = -significand[k];
  }
  int64_t sum = shifted(start.significand, 23 - model.fraction + largest - start.exponent);
  if (start.negative) sum = -sum;
  for (int k = 0; k < model.terms; k++) {
    const bool negative = significand[k] < 0;
    const int shift = 14 - model.fraction + largest - exponent[k];
    const int64_t term = shifted(negative ? -significand[k] : significand[k], shift);
    sum += negative ? -term : term;
  }
  return towards_zero(sum, largest - model.fraction);
}

// A step of 16 products.
inline float exact_step(Model model, float c, const float* a, const float* b, int stride) {
  for (int k = 0; k < 16; k += model.terms) c = exact_sum(model, c, a + k, b + k * stride, stride);
  return c;
}

}  // namespace emu
