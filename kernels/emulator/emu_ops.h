// The instructions of device.cuh, emulated. Included by emu.h; same names, same order as there.
#pragma once
#include "exact.h"

// ---- numbers

NS_DEV float ns_u2f(u32 bits) { float f; memcpy(&f, &bits, 4); return f; }
NS_DEV u32 ns_f2u(float f) { u32 bits; memcpy(&bits, &f, 4); return bits; }
NS_DEV float ns_bf2f(bf16_t x) { return ns_u2f((u32)x << 16); }
NS_DEV bf16_t ns_f2bf(float x) {
  u32 u = ns_f2u(x);
  if ((u & 0x7fffffff) > 0x7f800000) return 0x7fff;
  return (bf16_t)((u + 0x7fff + ((u >> 16) & 1)) >> 16);
}
NS_DEV u32 ns_pack(float lo, float hi) { return (u32)ns_f2bf(lo) | (u32)ns_f2bf(hi) << 16; }
NS_DEV float ns_fma(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
NS_DEV double ns_fma64(double a, double b, double c) { return __builtin_fma(a, b, c); }
NS_DEV float ns_sqrt(float x) { return __builtin_sqrtf(x); }
NS_DEV u32 ns_mulhi(u32 a, u32 b) { return (u32)((u64)a * b >> 32); }
NS_DEV float ns_ex2(float x) { return x < -126.0f ? 0.0f : exp2f(x); }
NS_DEV float ns_rcp(float x) { return 1.0f / x; }

// ---- a warp

namespace emu {
template <class T> inline T shuffle(T v, int from) {
  struct A { T v, result; int from; } a{v, v, from};
  warp_collective(&a, [](Fiber* f, int n) {
    for (int i = 0; i < n; i++) {
      A* x = (A*)f[i].argument;
      if (x->from >= 0 && x->from < n) x->result = ((A*)f[x->from].argument)->v;
    }
  });
  return a.result;
}
}
NS_DEV float ns_shfl_xor(float v, int m) { return emu::shuffle(v, emu::F->lane ^ m); }
NS_DEV float ns_shfl(float v, int lane) { return emu::shuffle(v, lane); }
NS_DEV u32 ns_shfl_xor_u32(u32 v, int m) { return emu::shuffle(v, emu::F->lane ^ m); }
NS_DEV u32 ns_shfl_u32(u32 v, int lane) { return emu::shuffle(v, lane); }
NS_DEV u32 ns_shfl_up_u32(u32 v, int by) { return emu::shuffle(v, emu::F->lane - by); }
NS_DEV double ns_shfl_xor_f64(double v, int m) { return emu::shuffle(v, emu::F->lane ^ m); }
NS_DEV double ns_shfl_up_f64(double v, int by) { return emu::shuffle(v, emu::F->lane - by); }
NS_DEV u32 ns_ballot(int predicate) {
  struct A { int p; u32 result; } a{predicate, 0};
  emu::warp_collective(&a, [](emu::Fiber* f, int n) {
    u32 mask = 0;
    for (int i = 0; i < n; i++) mask |= (u32)(((A*)f[i].argument)->p != 0) << i;
    for (int i = 0; i < n; i++) ((A*)f[i].argument)->result = mask;
  });
  return a.result;
}
NS_DEV void ns_syncwarp() { emu::warp_collective(nullptr, [](emu::Fiber*, int) {}); }
NS_DEV void ns_bar_sync(int id, int threads) { emu::barrier(id, threads); }
NS_DEV void ns_bar_arrive(int id, int threads) { emu::arrive(id, threads); }

// ---- counters of many threads

NS_DEV u32 ns_add(u32* to, u32 n) { return __atomic_fetch_add(to, n, __ATOMIC_SEQ_CST); }
NS_DEV u64 ns_add(u64* to, u64 n) { return __atomic_fetch_add(to, n, __ATOMIC_SEQ_CST); }
NS_DEV void ns_fence() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }

// ---- sm_80: asynchronous copies, ldmatrix, mma.sync

NS_DEV u32 ns_smem(const void* p) { return emu::shared_address(p); }
NS_DEV void ns_cp16(u32 to, const void* from) {
  emu::touch(from);
  emu::F->copies.open.push_back({to, from, 16});
}
NS_DEV void ns_cp16z(u32 to, const void* from, int valid) {
  emu::touch(from);
  emu::F->copies.open.push_back({to, from, valid ? 16u : 0u});
}
NS_DEV void ns_cp_commit() {
  auto& q = emu::F->copies;
  q.committed.push_back(std::move(q.open));
  q.open.clear();
}
template <int N> NS_DEV void ns_cp_wait() {
  auto& q = emu::F->copies.committed;
  while ((int)q.size() > N) {
    for (auto& c : q.front()) {
      u8* to = emu::shared_pointer(c.to, 16);
      memcpy(to, c.from, c.bytes);
      memset(to + c.bytes, 0, 16 - c.bytes);
    }
    q.erase(q.begin());
  }
}

namespace emu {
// `count` 8x8 matrices of 16-bit elements; rows at the addresses of lanes 0..8*count.
template <int count, bool transposed> inline void load_matrices(u32 (&r)[4], u32 address) {
  struct A { u32 address; u32* r; } a{address, r};
  warp_collective(&a, [](Fiber* f, int) {
    for (int m = 0; m < count; m++) {
      bf16_t e[8][8];
      for (int row = 0; row < 8; row++) {
        u32 at = ((A*)f[m * 8 + row].argument)->address;
        if (at & 15) fail("ldmatrix: address %u is not a multiple of 16", at);
        memcpy(e[row], shared_pointer(at, 16), 16);
      }
      for (int lane = 0; lane < 32; lane++) {
        int i = lane >> 2, j = (lane & 3) * 2;
        u32 lo = transposed ? e[j][i] : e[i][j], hi = transposed ? e[j + 1][i] : e[i][j + 1];
        ((A*)f[lane].argument)->r[m] = lo | hi << 16;
      }
    }
  });
}
// The model that NEXTSTATE_EMULATED_TENSOR names, `hopper` or `ampere`; none without it.
const Model* exact_tensor_cores();

// One step of a tensor core: c += a·b over 16 products. The plain model: f32 fused multiply-adds, k ascending; it is fast. The
// exact ones are in exact.h.
inline void dot16(float* c, const float* a, const float* b, int columns) {
  if (const Model* model = exact_tensor_cores()) {
    for (int n = 0; n < columns; n++) c[n] = exact_step(*model, c[n], a, b + n, columns);
    return;
  }
  for (int k = 0; k < 16; k++)
    for (int n = 0; n < columns; n++) c[n] = __builtin_fmaf(a[k], b[k * columns + n], c[n]);
}
}
NS_DEV void ns_ldsm4(u32& a, u32& b, u32& c, u32& d, u32 address) {
  u32 r[4];
  emu::load_matrices<4, false>(r, address);
  a = r[0]; b = r[1]; c = r[2]; d = r[3];
}
NS_DEV void ns_ldsm4t(u32& a, u32& b, u32& c, u32& d, u32 address) {
  u32 r[4];
  emu::load_matrices<4, true>(r, address);
  a = r[0]; b = r[1]; c = r[2]; d = r[3];
}
NS_DEV void ns_ldsm2(u32& a, u32& b, u32 address) {
  u32 r[4];
  emu::load_matrices<2, false>(r, address);
  a = r[0]; b = r[1];
}
NS_DEV void ns_ldsm2t(u32& a, u32& b, u32 address) {
  u32 r[4];
  emu::load_matrices<2, true>(r, address);
  a = r[0]; b = r[1];
}
NS_DEV void ns_mma(float (&c)[4], const u32 (&a)[4], u32 b0, u32 b1) {
  struct A { float* c; const u32* a; u32 b[2]; } x{c, a, {b0, b1}};
  emu::warp_collective(&x, [](emu::Fiber* f, int) {
    float a[16][16], b[16][8], c[16][8];
    for (int lane = 0; lane < 32; lane++) {
      A* x = (A*)f[lane].argument;
      int g = lane >> 2, t = 2 * (lane & 3);
      for (int i = 0; i < 4; i++) {
        int r = g + (i & 1) * 8, k = t + (i >> 1) * 8;
        a[r][k] = ns_bf2f(x->a[i] & 0xffff);
        a[r][k + 1] = ns_bf2f(x->a[i] >> 16);
        c[g + (i >> 1) * 8][t + (i & 1)] = x->c[i];
      }
      for (int i = 0; i < 2; i++) {
        b[t + i * 8][g] = ns_bf2f(x->b[i] & 0xffff);
        b[t + i * 8 + 1][g] = ns_bf2f(x->b[i] >> 16);
      }
    }
    for (int r = 0; r < 16; r++) emu::dot16(c[r], a[r], b[0], 8);
    for (int lane = 0; lane < 32; lane++) {
      A* x = (A*)f[lane].argument;
      int g = lane >> 2, t = 2 * (lane & 3);
      for (int i = 0; i < 4; i++) x->c[i] = c[g + (i >> 1) * 8][t + (i & 1)];
    }
  });
}

NS_DEV void ns_prefetch(const void*) {}
NS_DEV int ns_lowest(u64 bits) { return __builtin_ffsll((long long)bits) - 1; }

// ---- sm_90 and later: one kernel runs after the other here, but what begins early must not rely on that

NS_DEV void ns_grid_wait() { emu::grid_wait(); }
NS_DEV void ns_grid_next() {}

// ---- sm_90a: mbarriers, TMA, wgmma

namespace emu {
inline MBarrier& mbarrier(u32 at) {
  for (auto& m : B->mbarriers)
    if (m.at == at) return m;
  fail("mbarrier %u was not initialised", at);
}
inline void settle(MBarrier& m) {
  if (m.pending != 0 || m.bytes != 0) return;
  m.phase ^= 1;
  m.pending = m.expected;
  B->progress++;
}
// Copies arrive when somebody must wait for them, not before.
inline void land(u32 bar) {
  auto landings = std::move(B->landings);
  B->landings.clear();
  for (auto& l : landings) {
    if (l.bar != bar) { B->landings.push_back(std::move(l)); continue; }
    l.copy();
    auto& m = mbarrier(bar);
    m.bytes -= l.bytes;
    settle(m);
  }
}
}
NS_DEV void ns_mbar_init(u32 bar, u32 count) {
  for (auto& m : emu::B->mbarriers)
    if (m.at == bar) { m = {bar, count, count, 0, 0}; return; }
  emu::B->mbarriers.push_back({bar, count, count, 0, 0});
}
NS_DEV void ns_mbar_expect(u32 bar, u32 bytes) {
  auto& m = emu::mbarrier(bar);
  if (m.pending == 0) emu::fail("mbarrier %u: more arrivals than it was initialised for", bar);
  m.bytes += bytes;
  m.pending--;
  emu::settle(m);
}
NS_DEV void ns_mbar_arrive(u32 bar) {
  auto& m = emu::mbarrier(bar);
  if (m.pending == 0) emu::fail("mbarrier %u: more arrivals than it was initialised for", bar);
  m.pending--;
  emu::settle(m);
}
NS_DEV void ns_mbar_wait(u32 bar, u32 parity) {
  while (emu::mbarrier(bar).phase == parity) {
    emu::land(bar);
    if (emu::mbarrier(bar).phase != parity) break;
    emu::F->state = emu::SPINNING;
    emu::yield();
  }
  emu::B->progress++;
}
NS_DEV void ns_tma2d(u32 to, const ns_tmap* map, int x, int y, u32 bar) {
  int at[5] = {x, y, 0, 0, 0};
  emu::tma(to, (const emu::TensorMap*)map, at, bar);
}
NS_DEV void ns_tma3d(u32 to, const ns_tmap* map, int x, int y, int z, u32 bar) {
  int at[5] = {x, y, z, 0, 0};
  emu::tma(to, (const emu::TensorMap*)map, at, bar);
}
NS_DEV void ns_tma2d_store(const ns_tmap* map, int x, int y, u32 from) {
  emu::tma_out((const emu::TensorMap*)map, x, y, from, false);
}
NS_DEV void ns_tma2d_add(const ns_tmap* map, int x, int y, u32 from) {
  emu::tma_out((const emu::TensorMap*)map, x, y, from, true);
}
NS_DEV void ns_add4(float* to, f32x4 v) { to[0] += v.x, to[1] += v.y, to[2] += v.z, to[3] += v.w; }
NS_DEV void ns_bulk_commit() {
  auto& q = emu::F->bulks;
  q.committed.push_back(std::move(q.open));
  q.open.clear();
}
NS_DEV void ns_bulk_wait_read() {
  for (auto& group : emu::F->bulks.committed)
    for (auto& b : group) {
      const float* from = (const float*)emu::shared_pointer(b.from, b.bytes);
      if (b.data.empty()) b.data.assign(from, from + b.bytes / 4);
    }
}
NS_DEV void ns_bulk_wait() {
  ns_bulk_wait_read();
  for (auto& group : emu::F->bulks.committed)
    for (auto& b : group)
      for (size_t i = 0; i < b.data.size(); i++) b.to[i] = b.add ? b.to[i] + b.data[i] : b.data[i];
  emu::F->bulks.committed.clear();
}
NS_DEV void ns_turn_wait(const int* turn, int value) { emu::wait_for_turn(turn, value); }
NS_DEV void ns_turn_fence() {}
NS_DEV void ns_turn_pass(int* turn, int value) { __atomic_store_n(turn, value, __ATOMIC_RELEASE); }
NS_DEV void ns_tma3d_ask(const ns_tmap*, int, int, int) {}
NS_DEV void ns_fence_async() {}
NS_DEV void ns_wg_fence() {}
NS_DEV void ns_wg_commit() {
  auto& q = emu::F->products;
  q.committed.push_back(std::move(q.open));
  q.open.clear();
}
template <int N> NS_DEV void ns_wg_hold(float (&)[N]) {}
NS_DEV void ns_wg_hold(u32 (&)[4]) {}
template <int N> NS_DEV void ns_regs_inc() {}
template <int N> NS_DEV void ns_regs_dec() {}
NS_DEV u64 ns_desc(u32 address) { return (u64)address | (u64)1 << 62; }
NS_DEV u64 ns_desc_at(u64 desc, u32 bytes) { return desc + bytes; }
NS_DEV u64 ns_desc_down(u32 address, u32 block) { return (u64)address | (u64)(block >> 4) << 32 | (u64)1 << 62; }

namespace emu {
// Does all but the last `keep` committed groups: m64 k16 products, both operands in shared memory in rows of 128
// bytes with a 128-byte swizzle, K-major, or the second by `ns_desc_down`.
void wgmma_wait(int keep);
}
template <int columns, int down = 0> NS_DEV void ns_wgmma(float* d, u64 a, u64 b, int accumulate) {
  emu::F->products.open.push_back({d, a, b, (accumulate != 0) | columns << 1 | down << 16});
}
template <int N> NS_DEV void ns_wg_wait() { emu::wgmma_wait(N); }
template <int DOWN = 0> NS_DEV void ns_wgmma_n256(float (&d)[128], u64 a, u64 b, int accumulate) {
  ns_wgmma<256, DOWN>(d, a, b, accumulate);
}
NS_DEV void ns_wgmma_n128(float (&d)[64], u64 a, u64 b, int accumulate) { ns_wgmma<128>(d, a, b, accumulate); }
NS_DEV void ns_wgmma_n64(float (&d)[32], u64 a, u64 b, int accumulate) { ns_wgmma<64>(d, a, b, accumulate); }
template <int N> NS_DEV void ns_wgmma_few(float (&d)[N], u64 a, u64 b) { ns_wgmma<2 * N>(d, a, b, 1); }
NS_DEV void ns_wgmma_first_n64(float (&d)[32], u64 a, u64 b) { ns_wgmma<64>(d, a, b, 0); }
NS_DEV void ns_wgmma_first_down_n64(float (&d)[32], u64 a, u64 b) { ns_wgmma<64, 3>(d, a, b, 0); }
NS_DEV void ns_wgmma_down_n64(float (&d)[32], u64 a, u64 b) { ns_wgmma<64, 3>(d, a, b, 1); }
template <int columns> NS_DEV void ns_wgmma_left(float* d, const u32* a, u64 b) {
  emu::F->products.open.push_back({d, 0, b, 1 | columns << 1 | 1 << 16, a});
}
NS_DEV void ns_wgmma_left_n128(float (&d)[64], const u32 (&a)[4], u64 b) { ns_wgmma_left<128>(d, a, b); }
NS_DEV void ns_wgmma_left_n64(float (&d)[32], const u32 (&a)[4], u64 b) { ns_wgmma_left<64>(d, a, b); }
NS_DEV void ns_wgmma_left_along_n128(float (&d)[64], const u32 (&a)[4], u64 b, int accumulate) {
  emu::F->products.open.push_back({d, 0, b, (accumulate != 0) | 128 << 1, a});
}
