// The scheduler of the emulator: fibers of a block on one OS thread, blocks of a grid on a few.
#include "emu.h"

#include <atomic>
#include <chrono>
#include <mutex>
#include <sys/mman.h>
#include <thread>

namespace emu {

__thread Block* B;
__thread Fiber* F;
__thread u8 anchor;

const size_t STACK = 128 * 1024;

// Saves the callee-saved registers on the old stack, takes them from the new one.
asm(R"(
.text
.globl emu_switch
.hidden emu_switch
.type emu_switch, @function
emu_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
)");

const Model* exact_tensor_cores() {
  static const Model* const model = []() -> const Model* {
    const char* text = getenv("NEXTSTATE_EMULATED_TENSOR");
    if (!text) return nullptr;
    return !strcmp(text, "hopper") ? &HOPPER : !strcmp(text, "ampere") ? &AMPERE : nullptr;
  }();
  return model;
}

std::vector<Kernel>& kernels() {
  static std::vector<Kernel> all;
  return all;
}

void fail(const char* format, ...) {
  static std::mutex one;
  if (!B->failed) {
    std::lock_guard<std::mutex> hold(one);
    va_list list;
    va_start(list, format);
    fprintf(stderr, "emulator: block %d,%d,%d thread %d: ", B->bid.x, B->bid.y, B->bid.z, F->tid.x);
    vfprintf(stderr, format, list);
    fprintf(stderr, "\n");
    va_end(list);
  }
  B->failed = true;
  F->state = DONE;
  for (;;) yield();
}

static void release(int id) {
  B->arrived[id] = 0;
  for (auto& f : B->fibers)
    if (f.state == WAITING && f.barrier == id + 1) {
      f.barrier = 0;
      f.state = READY;
    }
}

void barrier(int id, int count) {
  Fiber* me = F;
  me->barrier = id + 1;
  me->state = WAITING;
  if (++B->arrived[id] == count)
    release(id);
  else
    yield();
}

void arrive(int id, int count) {
  if (++B->arrived[id] != count) return;
  release(id);
  B->progress++;
}

void wait_for_turn(const int* turn, int value) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  while (__atomic_load_n(turn, __ATOMIC_ACQUIRE) != value) {
    if (std::chrono::steady_clock::now() > end) fail("turn %d never came", value);
    B->progress++;
    F->state = SPINNING;
    yield();
    std::this_thread::sleep_for(std::chrono::microseconds(100));
  }
}

bool (*written)(const void*) = [](const void*) { return true; };

void grid_wait() {
  while (B->until_wait) {
    F->state = WAITING;
    yield();
  }
}

static void entry() {
  (*B->body)();
  F->state = DONE;
  B->live--;
  // Barrier 0 is everybody's: those who left no longer count.
  if (B->live > 0 && B->arrived[0] == B->live) release(0);
  yield();
  abort();
}

// Seed of the order in which warps run, from NEXTSTATE_EMULATOR_ORDER; 0 is ascending.
static u64 order() {
  static const u64 seed = [] {
    const char* text = getenv("NEXTSTATE_EMULATOR_ORDER");
    return text ? strtoull(text, nullptr, 10) : 0ull;
  }();
  return seed;
}

static void start(Block& b) {
  memset(b.arrived, 0, sizeof b.arrived);
  b.live = (int)b.fibers.size();
  b.progress = 0;
  b.failed = false;
  b.mbarriers.clear();
  b.landings.clear();
  b.poisoned.clear();
  b.statics = 0;
  for (auto& w : b.warps) w = {0};
  for (auto& w : b.warpgroups) w = {0};
  memset(b.smem, 0xff, b.smem_bytes);
  for (size_t i = 0; i < b.fibers.size(); i++) {
    Fiber& f = b.fibers[i];
    f.state = READY;
    f.tid = {(int)i, 0, 0};
    f.lane = i & 31;
    f.warp = i >> 5;
    f.barrier = 0;
    f.copies = {};
    f.products = {};
    f.bulks = {};
    void** sp = (void**)(f.stack + STACK - 64);
    *--sp = nullptr;
    *--sp = (void*)entry;
    for (int k = 0; k < 6; k++) *--sp = nullptr;
    f.sp = sp;
  }
}

static void run_block(Block& b) {
  B = &b;
  start(b);
  int n = (int)b.fibers.size(), warps = (n + 31) / 32;
  u64 random = order() ? order() * 0x9e3779b97f4a7c15ull + b.bid.x : 0;
  while (b.live > 0 && !b.failed) {
    u64 before = b.progress;
    bool moved = false;
    int first = 0;
    if (random) {
      random ^= random << 13, random ^= random >> 7, random ^= random << 17;
      first = random % warps;
    }
    for (int k = 0; k < warps && !b.failed; k++) {
      int w = (first + k) % warps;
      // A warp runs until all its fibers wait: warps meet rarely, lanes often.
      for (bool again = true; again && !b.failed;) {
        again = false;
        for (int i = w * 32; i < n && i < w * 32 + 32; i++) {
          Fiber& f = b.fibers[i];
          if (f.state != READY && f.state != SPINNING) continue;
          bool spun = f.state == SPINNING;
          f.state = READY;
          F = &f;
          emu_switch(&b.scheduler, f.sp);
          if (b.failed) break;
          if (f.state != SPINNING) moved = again = true;
          if (f.state == SPINNING && !spun) moved = true;
        }
      }
    }
    if (!moved && b.progress == before && !b.failed) {
      if (b.until_wait) return;
      fprintf(stderr, "emulator: block %d,%d,%d: deadlock, %d threads live, %d at the barrier\n", b.bid.x, b.bid.y,
              b.bid.z, b.live, b.arrived[0]);
      b.failed = true;
    }
  }
  if (!b.failed && !b.landings.empty()) {
    fprintf(stderr, "emulator: block %d,%d,%d ended before its bulk copies arrived\n", b.bid.x, b.bid.y, b.bid.z);
    b.failed = true;
  }
}

bool run(Index grid, int threads, size_t smem, size_t allowed, const std::function<void()>& body, Part part) {
  std::atomic<int> next{0};
  std::atomic<bool> good{true};
  int total = grid.x * grid.y * grid.z;
  auto worker = [&] {
    Block b;
    b.fibers.resize(threads);
    b.warps.resize((threads + 31) / 32);
    b.warpgroups.resize((threads + 127) / 128);
    b.bdim = {threads, 1, 1};
    b.gdim = grid;
    b.smem_bytes = smem ? smem : 16;
    b.allowed = allowed;
    b.until_wait = part == UNTIL_WAIT;
    b.smem = (u8*)aligned_alloc(1024, (b.smem_bytes + 1023) / 1024 * 1024);
    b.body = &body;
    u8* stacks = (u8*)mmap(nullptr, STACK * threads, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (int i = 0; i < threads; i++) b.fibers[i].stack = stacks + STACK * i;
    while (good) {
      int i = next++;
      if (i >= total) break;
      b.bid = {i % grid.x, i / grid.x % grid.y, i / (grid.x * grid.y)};
      run_block(b);
      if (b.failed) good = false;
    }
    munmap(stacks, STACK * threads);
    free(b.smem);
  };
  std::vector<std::thread> others;
  int workers = (int)std::thread::hardware_concurrency();
  for (int i = 1; i < workers && i < total; i++) others.emplace_back(worker);
  worker();
  for (auto& t : others) t.join();
  return good;
}

// ---- Hopper

void tma(u32 to, const TensorMap* map, const int* at, u32 bar) {
  TensorMap m = *map;
  std::vector<int> start(at, at + 5);
  u32 rows = 1;
  for (u32 d = 1; d < m.rank; d++) rows *= m.box[d];
  u32 width = m.box[0] * m.element;
  u32 alignment = m.swizzle ? 8 * m.swizzle : 128;
  if (to & (alignment - 1)) fail("TMA: shared address %u is not a multiple of %u", to, alignment);
  if (B->until_wait) {
    // What is copied does not matter then, and all memory is hidden.
    if (written(m.base)) touch(m.base);
    B->landings.push_back({bar, [] {}, rows * width});
    return;
  }
  auto copy = [=] {
    for (u32 r = 0; r < rows; r++) {
      u64 source = 0;
      bool inside = true;
      u32 rest = r;
      for (u32 d = 1; d < m.rank; d++) {
        long c = (long)start[d] + rest % m.box[d];
        rest /= m.box[d];
        inside = inside && c >= 0 && c < (long)m.dim[d];
        source += (u64)c * m.stride[d - 1];
      }
      for (u32 byte = 0; byte < width; byte += 16) {
        u8 chunk[16] = {0};
        for (u32 e = 0; e < 16 / m.element; e++) {
          long c = (long)start[0] + (byte / m.element + e);
          if (inside && c >= 0 && c < (long)m.dim[0])
            memcpy(chunk + e * m.element, m.base + source + c * m.element, m.element);
        }
        u32 offset = r * width + byte;
        // Bits 4.. of the address are exclusive-ored with bits 7..: as many as a swizzled row has chunks.
        if (m.swizzle) offset ^= (offset >> 7 & (m.swizzle / 16 - 1)) << 4;
        memcpy(shared_pointer(to + offset, 16), chunk, 16);
      }
    }
  };
  B->landings.push_back({bar, copy, rows * width});
}

void tma_out(const TensorMap* map, int x, int y, u32 from, bool add) {
  const u32 width = map->box[0] * 4, alignment = map->swizzle ? 8 * map->swizzle : 128;
  if (map->element != 4 || map->rank != 2) fail("TMA: only tiles of f32 are stored");
  if (from & (alignment - 1)) fail("TMA: shared address %u is not a multiple of %u", from, alignment);
  touch(map->base);
  for (u32 r = 0; r < map->box[1]; r++)
    for (u32 byte = 0; byte < width; byte += 16) {
      const long column = (long)x + byte / 4, row = (long)y + r;
      if (column < 0 || column + 4 > (long)map->dim[0] || row < 0 || row >= (long)map->dim[1]) continue;
      u32 offset = r * width + byte;
      if (map->swizzle) offset ^= (offset >> 7 & (map->swizzle / 16 - 1)) << 4;
      F->bulks.open.push_back({(float*)(map->base + row * map->stride[0]) + column, from + offset, 16, add, {}});
    }
}

static float element(u32 base, int row, int k) {
  // The swizzle is on address bits.
  u32 at = base + row * 128 + k * 2;
  at ^= (at >> 7 & 7) << 4;
  bf16_t value;
  memcpy(&value, shared_pointer(at, 2), 2);
  return ns_bf2f(value);
}

static void product(Fiber* group, const Wgmma* (*of)(Fiber&, size_t, size_t), size_t g, size_t i) {
  const Wgmma* one = of(group[0], g, i);
  int columns = one->accumulate >> 1 & 511, down = one->accumulate >> 16 & 1, left_down = one->accumulate >> 17;
  static thread_local float a[64][16], b[16 * 256], c[64][256];
  if (!one->left)
    for (int r = 0; r < 64; r++)
      for (int k = 0; k < 16; k++) a[r][k] = left_down ? element((u32)one->a, k, r) : element((u32)one->a, r, k);
  for (int n = 0; n < columns; n++)
    for (int k = 0; k < 16; k++)
      // Down: row k of the block of 64 columns that has column n.
      b[k * columns + n] = down ? element((u32)one->b + (u32)(one->b >> 32 & 0x3fff) * 16 * (n / 64), k, n % 64)
                                : element((u32)one->b, n, k);
  for (int lane = 0; lane < 128; lane++) {
    const Wgmma* x = of(group[lane], g, i);
    if (x->a != one->a || !x->left != !one->left || x->b != one->b || x->accumulate != one->accumulate)
      fail("wgmma: threads of a warpgroup disagree");
    int row = (lane >> 5) * 16 + (lane >> 2 & 7), column = (lane & 3) * 2;
    for (int i = 0; x->left && i < 8; i++)
      a[row + (i >> 1 & 1) * 8][column + (i & 1) + (i >> 2) * 8] = ns_bf2f((bf16_t)(x->left[i >> 1] >> (i & 1) * 16));
    for (int j = 0; j < columns / 8; j++)
      for (int q = 0; q < 4; q++)
        c[row + (q >> 1) * 8][j * 8 + column + (q & 1)] = x->accumulate & 1 ? x->d[4 * j + q] : 0.0f;
  }
  for (int r = 0; r < 64; r++) dot16(c[r], a[r], b, columns);
  for (int lane = 0; lane < 128; lane++) {
    const Wgmma* x = of(group[lane], g, i);
    int row = (lane >> 5) * 16 + (lane >> 2 & 7), column = (lane & 3) * 2;
    for (int j = 0; j < columns / 8; j++)
      for (int q = 0; q < 4; q++) x->d[4 * j + q] = c[row + (q >> 1) * 8][j * 8 + column + (q & 1)];
  }
}

void wgmma_wait(int keep) {
  warpgroup_collective(&keep, [](Fiber* group, int) {
    size_t keep = *(int*)group[0].argument, count = group[0].products.committed.size();
    for (int lane = 0; lane < 128; lane++)
      if (group[lane].products.committed.size() != count) fail("wgmma: threads of a warpgroup committed differently");
    auto of = [](Fiber& f, size_t g, size_t i) -> const Wgmma* { return &f.products.committed[g][i]; };
    size_t done = count > keep ? count - keep : 0;
    for (size_t g = 0; g < done; g++)
      for (size_t i = 0; i < group[0].products.committed[g].size(); i++) product(group, of, g, i);
    for (int lane = 0; lane < 128; lane++) {
      auto& q = group[lane].products.committed;
      q.erase(q.begin(), q.begin() + done);
    }
  });
}

}  // namespace emu
