// Runs CUDA kernel sources on a CPU: one fiber for each CUDA thread, one block at a time on each worker.
//
// What device.cuh wraps as PTX for nvcc is here as plain C++ with the same names. Everything asynchronous is done as
// late as its waits allow (cp.async at wait_group, TMA at the mbarrier, wgmma at its wait), and shared memory starts as
// NaN, so that a forgotten wait or barrier changes results. A kernel that begins early is run twice, first as far as its waits
// for the kernel before it (`grid_wait`), with all memory hidden by the stand-in driver. It does not see: bank conflicts, proxy fences, races
// between fibers that the schedule of a run does not hit, and the rounding of approximate instructions.
// Start at `run` (emu.cpp has the scheduler).
#pragma once
#include <cmath>
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#define NS_EMU 1

typedef uint16_t bf16_t;
typedef uint8_t u8;
typedef uint32_t u32;
typedef uint64_t u64;

struct alignas(16) u32x4 { u32 x, y, z, w; };
struct alignas(16) f32x4 { float x, y, z, w; };
struct alignas(8) u32x2 { u32 x, y; };
struct alignas(64) ns_tmap { u64 q[16]; };

namespace emu {

struct Index { int x, y, z; };

enum State { READY, WAITING, SPINNING, DONE };

struct Copy { u32 to; const void* from; u32 bytes; };
struct Wgmma { float* d; u64 a, b; int accumulate; const u32* left; };
struct Bulk { float* to; u32 from, bytes; bool add; std::vector<float> data; };
template <class T> struct Groups { std::vector<std::vector<T>> committed; std::vector<T> open; };

struct Fiber {
  void* sp;
  State state;
  Index tid;
  int lane, warp;
  int barrier;          // 1 + the named barrier that it waits at, or 0
  void* argument;       // of the collective that it waits in
  const void* kind;     // which collective
  u8* stack;
  Groups<Copy> copies;  // cp.async
  Groups<Wgmma> products;
  Groups<Bulk> bulks;
};

struct Gathering { int arrived; };

struct MBarrier { u32 at; u32 expected, pending, phase; long bytes; };
struct Landing { u32 bar; std::function<void()> copy; u32 bytes; };

struct Block {
  std::vector<Fiber> fibers;
  std::vector<Gathering> warps, warpgroups;
  int arrived[16], live;
  u64 progress;
  Index bid, bdim, gdim;
  u8* smem;
  size_t smem_bytes;
  size_t allowed;  // bytes of shared memory, static ones and these together
  size_t statics;
  void* scheduler;
  const std::function<void()>* body;
  std::vector<MBarrier> mbarriers;
  std::vector<Landing> landings;
  std::vector<const void*> poisoned;
  bool until_wait;  // its threads stop at `ns_grid_wait`
  bool failed;
};

// `__thread`: plain pointers, reached without an initialisation guard.
extern __thread Block* B;
extern __thread Fiber* F;
extern __thread u8 anchor;

// Runs `body` as every thread of a grid, or as much of it as comes before a thread waits for the kernel before, or for a thread that
// does. False when a block failed; the reason is on stderr.
enum Part { ALL, UNTIL_WAIT };
bool run(Index grid, int threads, size_t smem, size_t allowed, const std::function<void()>& body, Part part);

extern "C" void emu_switch(void** save, void* to);
inline void yield() { emu_switch(&F->sp, B->scheduler); }
[[noreturn]] __attribute__((format(printf, 1, 2))) void fail(const char* format, ...);

// ---- threads that meet

// The last of `size` fibers to arrive does the work for all of them.
template <class Op> inline void collective(Gathering& g, int size, int first, void* argument, Op op) {
  static const char kind = 0;
  Fiber* me = F;
  me->argument = argument;
  me->kind = &kind;
  if (++g.arrived < size) {
    me->state = WAITING;
    yield();
    return;
  }
  g.arrived = 0;
  Fiber* group = &B->fibers[first];
  for (int i = 0; i < size; i++)
    if (group[i].kind != &kind) fail("lanes of one group met in different collectives");
  op(group, size);
  for (int i = 0; i < size; i++) group[i].state = READY;
}

inline int warp_size(int warp) {
  int rest = (int)B->fibers.size() - warp * 32;
  return rest < 32 ? rest : 32;
}
template <class Op> inline void warp_collective(void* argument, Op op) {
  int w = F->warp;
  collective(B->warps[w], warp_size(w), w * 32, argument, op);
}
template <class Op> inline void warpgroup_collective(void* argument, Op op) {
  int g = F->warp >> 2;
  collective(B->warpgroups[g], 128, g * 128, argument, op);
}

void barrier(int id, int count);
void arrive(int id, int count);

// Waits for the kernels before this one, which have ended here; the first of the two runs of one that begins early goes no further.
void grid_wait();
// Reaches memory now that an asynchronous instruction reaches later, so that the first run sees it.
inline void touch(const void* p) {
  if (B->until_wait) (void)*(const volatile u8*)p;
}
// Whether a kernel may have written to the allocation that this lies in: what the stand-in driver says.
extern bool (*written)(const void* p);

// What another block on another thread does takes its time; a turn that never comes fails.
void wait_for_turn(const int* turn, int value);

// ---- shared memory: 32-bit addresses, of dynamic memory from DYNAMIC on, of `__shared__` objects around STATIC

const u32 DYNAMIC = 0x1000, STATIC = 0x80000000;

inline u32 shared_address(const void* p) {
  const u8* q = (const u8*)p;
  if (q >= B->smem && q < B->smem + B->smem_bytes) return DYNAMIC + (u32)(q - B->smem);
  return STATIC + (u32)(int32_t)(q - &anchor);
}
inline u8* shared_pointer(u32 a, u32 bytes) {
  if (a >= 0x40000000) return &anchor + (int32_t)(a - STATIC);
  u32 offset = a - DYNAMIC;
  if (offset + bytes > B->smem_bytes) fail("shared memory: byte %u of %zu", offset, B->smem_bytes);
  return B->smem + offset;
}
// NaN before the first use in a block.
template <class T> inline void poison(T& object) {
  for (const void* seen : B->poisoned)
    if (seen == &object) return;
  B->poisoned.push_back(&object);
  B->statics += sizeof object;
  if (B->statics + B->smem_bytes > B->allowed)
    fail("shared memory: %zu static bytes and %zu others, %zu allowed", B->statics, B->smem_bytes, B->allowed);
  memset((void*)&object, 0xff, sizeof object);
}

// ---- kernels by name, for the stand-in driver

// What a kernel does with a parameter, by its type. What is described by a map is read but for a kernel's that stores to it, by
// `tma_out`.
enum Use { NOTHING, READS, WRITES, POINTERS };
template <class T> constexpr Use use_of() {
  if (std::is_pointer_v<T>) return std::is_const_v<std::remove_pointer_t<T>> ? READS : WRITES;
  return sizeof(T) > 8 && !std::is_same_v<T, ns_tmap> ? POINTERS : NOTHING;
}

struct Kernel {
  const char* name;
  std::vector<size_t> sizes;  // of the parameters
  std::vector<Use> uses;
  std::function<void(void**)> call;
  mutable int granted = 0;  // bytes of dynamic shared memory that were asked for beyond the plain limit
};
std::vector<Kernel>& kernels();

template <class... A, size_t... I> void apply(void (*f)(A...), void** p, std::index_sequence<I...>) {
  f(*(std::remove_cv_t<std::remove_reference_t<A>>*)p[I]...);
}
struct Register {
  template <class... A> Register(const char* name, void (*f)(A...)) {
    kernels().push_back({name, {sizeof(A)...}, {use_of<A>()...}, [f](void** p) { apply(f, p, std::index_sequence_for<A...>{}); }});
  }
};

// ---- what a tensor map holds for `ns_tma2d`; written by the stand-in's cuTensorMapEncodeTiled

struct TensorMap {
  const u8* base;
  u32 rank, element;
  u64 dim[5], stride[4];  // stride in bytes, of dimension 1 and on
  u32 box[5];
  u32 swizzle;            // bytes of a swizzled row: 0, 32, 64 or 128
};
static_assert(sizeof(TensorMap) <= sizeof(ns_tmap), "a tensor map has 128 bytes");

void tma(u32 to, const TensorMap* map, const int* at, u32 bar);
// A tile of f32 out of shared memory, into the open group of the thread's bulk copies.
void tma_out(const TensorMap* map, int x, int y, u32 from, bool add);

}  // namespace emu

#define threadIdx (emu::F->tid)
#define blockIdx (emu::B->bid)
#define blockDim (emu::B->bdim)
#define gridDim (emu::B->gdim)
#define __syncthreads() emu::barrier(0, emu::B->live)
#define __shared__ static thread_local
#define __restrict__ __restrict
#define __launch_bounds__(...)
#define __grid_constant__
#define NS_KERNEL extern "C"
#define NS_DEV static inline
#define NS_DEV_MEMBER inline
#define NS_RESTRICT __restrict
#define NS_DYN_SMEM(name) unsigned char* name = emu::B->smem
#define NS_SHARED(type, name, ...) static thread_local type name __VA_ARGS__; emu::poison(name)
#define NS_REGISTER(name) static emu::Register registered_##name(#name, &name)

#include "emu_ops.h"
