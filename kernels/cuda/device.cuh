// Every instruction that kernels use: PTX for nvcc, the emulator for g++ (kernels/emulator). Kernels contain no asm.
//
// The compilers' own fusing of multiply and add is off (-fmad=false, -ffp-contract=off): a kernel says `ns_fma` where
// it means one rounding, so two variants of an op cannot differ by what a compiler found. Division, `ns_sqrt` and the
// rest are correctly rounded.
#pragma once
#include <stddef.h>

// The bug with this number is planted: tests/cuda/planted.rs builds kernels so and sees parity fail.
#ifndef NS_PLANT
#define NS_PLANT 0
#endif
#define NS_PLANTED(n) (NS_PLANT == (n))

#if defined(__CUDACC__) || defined(__CUDACC_RTC__)

typedef unsigned short bf16_t;
typedef unsigned char u8;
typedef unsigned int u32;
typedef unsigned long long u64;

struct __align__(16) u32x4 { u32 x, y, z, w; };
struct __align__(16) f32x4 { float x, y, z, w; };
struct __align__(8) u32x2 { u32 x, y; };
struct __align__(64) ns_tmap { u64 q[16]; };

#define NS_KERNEL extern "C" __global__
#define NS_DEV static __device__ __forceinline__
// Of members, and of functions with shared memory of their own: a compiler names what is static after the folder that it works in.
#define NS_DEV_MEMBER __device__ __forceinline__
#define NS_RESTRICT __restrict__
#define NS_DYN_SMEM(name) extern __shared__ __align__(1024) unsigned char name[]
// A static shared array, `NS_SHARED(float, part, [32])`; NaN at first under the emulator.
#define NS_SHARED(type, name, ...) __shared__ type name __VA_ARGS__
// After each kernel: makes it known to the stand-in driver.
#define NS_REGISTER(name)

// ---- numbers

NS_DEV float ns_u2f(u32 bits) { return __uint_as_float(bits); }
NS_DEV u32 ns_f2u(float f) { return __float_as_uint(f); }
NS_DEV float ns_bf2f(bf16_t x) { return __uint_as_float((u32)x << 16); }
NS_DEV bf16_t ns_f2bf(float x) {
  bf16_t r;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(r) : "f"(x));
  return r;
}
NS_DEV u32 ns_pack(float lo, float hi) {
  u32 r;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(hi), "f"(lo));
  return r;
}
NS_DEV float ns_fma(float a, float b, float c) { return __fmaf_rn(a, b, c); }
NS_DEV double ns_fma64(double a, double b, double c) { return __fma_rn(a, b, c); }
NS_DEV float ns_sqrt(float x) { return __fsqrt_rn(x); }
NS_DEV u32 ns_mulhi(u32 a, u32 b) { return __umulhi(a, b); }
// 2^x by one instruction, off by up to 2 units in the last place, of bits that differ from GPU to GPU: for weights of attention
// only (exp2.cuh). 2^0 is 1; 2^-inf and what is no normal number are 0; NaN stays NaN.
NS_DEV float ns_ex2(float x) {
  float r;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x));
  return r;
}
// 1 / x in the same way: off by up to 1 unit.
NS_DEV float ns_rcp(float x) {
  float r;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x));
  return r;
}

// ---- a warp

NS_DEV float ns_shfl_xor(float v, int m) { return __shfl_xor_sync(0xffffffffu, v, m); }
NS_DEV float ns_shfl(float v, int lane) { return __shfl_sync(0xffffffffu, v, lane); }
NS_DEV u32 ns_shfl_xor_u32(u32 v, int m) { return __shfl_xor_sync(0xffffffffu, v, m); }
NS_DEV u32 ns_shfl_u32(u32 v, int lane) { return __shfl_sync(0xffffffffu, v, lane); }
NS_DEV u32 ns_shfl_up_u32(u32 v, int by) { return __shfl_up_sync(0xffffffffu, v, by); }
NS_DEV double ns_shfl_xor_f64(double v, int m) { return __shfl_xor_sync(0xffffffffu, v, m); }
NS_DEV double ns_shfl_up_f64(double v, int by) { return __shfl_up_sync(0xffffffffu, v, by); }
NS_DEV u32 ns_ballot(int predicate) { return __ballot_sync(0xffffffffu, predicate); }
NS_DEV void ns_syncwarp() { __syncwarp(); }
// A named barrier (1 to 15) of some of a block's threads.
NS_DEV void ns_bar_sync(int id, int threads) { asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory"); }
// Counts at a named barrier without waiting there.
NS_DEV void ns_bar_arrive(int id, int threads) { asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory"); }

// ---- counters of many threads: only whole numbers, whose sum is the same in every order

// Each gives what was there before.
NS_DEV u32 ns_add(u32* to, u32 n) { return atomicAdd(to, n); }
NS_DEV u64 ns_add(u64* to, u64 n) { return atomicAdd(to, n); }
// What this thread wrote before is seen by whoever sees what it writes after.
NS_DEV void ns_fence() { __threadfence(); }

// ---- sm_80: asynchronous copies, ldmatrix, mma.sync

NS_DEV u32 ns_smem(const void* p) { return (u32)__cvta_generic_to_shared(p); }
NS_DEV void ns_cp16(u32 to, const void* from) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(from) : "memory");
}
// Zeros where not `valid`; the address must be readable all the same.
NS_DEV void ns_cp16z(u32 to, const void* from, int valid) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(valid ? 16 : 0) : "memory");
}
NS_DEV void ns_cp_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int N> NS_DEV void ns_cp_wait() { asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory"); }

NS_DEV void ns_ldsm4(u32& a, u32& b, u32& c, u32& d, u32 address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(a), "=r"(b), "=r"(c), "=r"(d) : "r"(address) : "memory");
}
NS_DEV void ns_ldsm4t(u32& a, u32& b, u32& c, u32& d, u32 address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(a), "=r"(b), "=r"(c), "=r"(d) : "r"(address) : "memory");
}
NS_DEV void ns_ldsm2(u32& a, u32& b, u32 address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0,%1}, [%2];" : "=r"(a), "=r"(b) : "r"(address) : "memory");
}
NS_DEV void ns_ldsm2t(u32& a, u32& b, u32 address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0,%1}, [%2];"
               : "=r"(a), "=r"(b) : "r"(address) : "memory");
}
NS_DEV void ns_mma(float (&c)[4], const u32 (&a)[4], u32 b0, u32 b1) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
               : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Asks for the 128 bytes at `p` to be fetched into the L2 cache.
NS_DEV void ns_prefetch(const void* p) { asm volatile("prefetch.global.L2 [%0];" ::"l"(p)); }
NS_DEV int ns_lowest(u64 bits) { return __ffsll((long long)bits) - 1; }

// ---- sm_90 and later: a kernel that begins before the one before it in the stream has ended; nothing elsewhere

// What the kernels before this one wrote is there. At once where the launch did not ask to begin early. What they wrote is not
// NS_RESTRICT in a kernel that waits: a compiler might read what nobody writes, as that promises, before the wait.
NS_DEV void ns_grid_wait() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
// The next kernel of the stream may begin, up to its `ns_grid_wait`.
NS_DEV void ns_grid_next() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

// ---- sm_90a: mbarriers, TMA, wgmma
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

NS_DEV void ns_mbar_init(u32 bar, u32 count) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(bar), "r"(count) : "memory");
}
NS_DEV void ns_mbar_expect(u32 bar, u32 bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(bar), "r"(bytes) : "memory");
}
NS_DEV void ns_mbar_arrive(u32 bar) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(bar) : "memory");
}
// Waits until the phase of this parity has completed.
NS_DEV void ns_mbar_wait(u32 bar, u32 parity) {
  asm volatile(
      "{\n.reg .pred P;\nL_%=:\nmbarrier.try_wait.parity.shared::cta.b64 P, [%0], %1;\n@P bra D_%=;\nbra L_%=;\nD_%=:\n}" ::"r"(bar),
      "r"(parity) : "memory");
}
NS_DEV void ns_tma2d(u32 to, const ns_tmap* map, int x, int y, u32 bar) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%2,%3}], [%4];" ::"r"(to),
      "l"(map), "r"(x), "r"(y), "r"(bar) : "memory");
}
NS_DEV void ns_tma3d(u32 to, const ns_tmap* map, int x, int y, int z, u32 bar) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%2,%3,%4}], [%5];" ::"r"(to),
      "l"(map), "r"(x), "r"(y), "r"(z), "r"(bar) : "memory");
}
// The box comes as far as the second-level cache.
NS_DEV void ns_tma3d_ask(const ns_tmap* map, int x, int y, int z) {
  asm volatile("cp.async.bulk.prefetch.tensor.3d.L2.global.tile [%0, {%1,%2,%3}];" ::"l"(map), "r"(x), "r"(y), "r"(z) : "memory");
}
NS_DEV void ns_fence_async() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }
NS_DEV void ns_wg_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
NS_DEV void ns_wg_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int N> NS_DEV void ns_wg_wait() { asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(N) : "memory"); }
// Nothing moves the use of these accumulators from behind a wait to before it.
template <int N> NS_DEV void ns_wg_hold(float (&d)[N]) {
#pragma unroll
  for (int i = 0; i < N; i++) asm volatile("" : "+f"(d[i])::"memory");
}
// Nothing moves the making of a first operand in registers from before this to behind it.
NS_DEV void ns_wg_hold(u32 (&a)[4]) {
#pragma unroll
  for (int i = 0; i < 4; i++) asm volatile("" : "+r"(a[i])::"memory");
}
template <int N> NS_DEV void ns_regs_inc() { asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(N)); }
template <int N> NS_DEV void ns_regs_dec() { asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(N)); }
// Bulk copies of a tile out of shared memory; they belong to the thread, which groups them by `ns_bulk_commit`.
NS_DEV void ns_tma2d_store(const ns_tmap* map, int x, int y, u32 from) {
  asm volatile("cp.async.bulk.tensor.2d.global.shared::cta.tile.bulk_group [%0, {%1,%2}], [%3];" ::"l"(map), "r"(x), "r"(y), "r"(from)
               : "memory");
}
// Adds f32 to what is there: in a fixed order only if no other block adds meanwhile.
NS_DEV void ns_tma2d_add(const ns_tmap* map, int x, int y, u32 from) {
  asm volatile("cp.reduce.async.bulk.tensor.2d.global.shared::cta.add.tile.bulk_group [%0, {%1,%2}], [%3];" ::"l"(map), "r"(x), "r"(y),
               "r"(from)
               : "memory");
}
// The same of four of a thread's numbers.
NS_DEV void ns_add4(float* to, f32x4 v) {
  asm volatile("red.relaxed.gpu.global.add.v4.f32 [%0], {%1,%2,%3,%4};" ::"l"(to), "f"(v.x), "f"(v.y), "f"(v.z), "f"(v.w) : "memory");
}
NS_DEV void ns_bulk_commit() { asm volatile("cp.async.bulk.commit_group;" ::: "memory"); }
// All of the thread's bulk copies have been read from shared memory.
NS_DEV void ns_bulk_wait_read() { asm volatile("cp.async.bulk.wait_group.read 0;" ::: "memory"); }
// They are where they belong.
NS_DEV void ns_bulk_wait() { asm volatile("cp.async.bulk.wait_group 0;" ::: "memory"); }
// Waits for another block, which must have a lower index: those start first.
NS_DEV void ns_turn_wait(const int* turn, int value) {
  int now;
  do asm volatile("ld.acquire.gpu.global.b32 %0, [%1];" : "=r"(now) : "l"(turn) : "memory");
  while (now != value);
  asm volatile("fence.proxy.async.global;" ::: "memory");
}
// Who waits for the turn sees what this thread has done before.
NS_DEV void ns_turn_fence() { asm volatile("fence.proxy.async.global;\nfence.acq_rel.gpu;" ::: "memory"); }
NS_DEV void ns_turn_pass(int* turn, int value) {
  ns_turn_fence();
  asm volatile("st.relaxed.gpu.global.b32 [%0], %1;" ::"l"(turn), "r"(value) : "memory");
}
// K-major, 128-byte swizzle, 1024 bytes from 8 rows to the next.
NS_DEV u64 ns_desc(u32 address) {
  return (u64)((address & 0x3FFFF) >> 4) | (u64)1 << 16 | (u64)(1024 >> 4) << 32 | (u64)1 << 62;
}
// The same for an operand whose terms lie down its columns: blocks of 64 columns (128 bytes) by rows, `block` bytes from one
// to the next.
NS_DEV u64 ns_desc_down(u32 address, u32 block) {
  return (u64)((address & 0x3FFFF) >> 4) | (u64)(block >> 4) << 16 | (u64)(1024 >> 4) << 32 | (u64)1 << 62;
}
// The descriptor of what lies `bytes` behind, at a multiple of 16.
NS_DEV u64 ns_desc_at(u64 desc, u32 bytes) { return (desc & 0xffffffff00000000ull) | (u32)((u32)desc + (bytes >> 4)); }
#include "wgmma.cuh"
#include "wgmma_few.cuh"

#endif
#else
#include "../emulator/emu.h"
#endif
