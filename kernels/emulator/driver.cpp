// A stand-in libcuda.so: the driver API over the emulator, for host code that runs where there is no GPU.
//
// Device memory is host memory that starts as NaN and has a margin that is checked. Work on a stream is queued and done
// only when somebody waits for it (or frees memory), so that a forgotten synchronisation shows. A kernel that may begin early
// fails when it reaches memory before it has waited for the kernels before it (`too_early`). Calls that the host
// code does not make are absent. NEXTSTATE_EMULATED_COMPUTE=8.0 changes the compute capability (9.0),
// NEXTSTATE_EMULATED_HOST_PAGES=1 when pageable memory is read. What a thread had done is
// counted (`ns_done`), for tests of what a step may not do.
#include "emu.h"

#include <algorithm>
#include <atomic>
#include <deque>
#include <map>
#include <set>
#include <memory>
#include <mutex>
#include <signal.h>
#include <sys/mman.h>
#include <utility>

typedef int Result;
typedef u64 Pointer;

enum {
  SUCCESS = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, NO_DEVICE = 100, INVALID_DEVICE = 101, INVALID_CONTEXT = 201,
  INVALID_HANDLE = 400, NOT_FOUND = 500, ILLEGAL_ADDRESS = 700, LAUNCH_FAILED = 719, CAPTURE_UNSUPPORTED = 900,
  CAPTURE_INVALIDATED = 901,
};

namespace {

struct Task { std::function<Result()> work; };
typedef std::vector<Task> Tasks;

struct Stream {
  void* context;                   // whose work it is
  std::deque<Task> queue;
  std::shared_ptr<Tasks> capture;  // what is recorded instead of queued
  bool lost = false;               // the recording: a call meanwhile was refused
};
struct Event {
  Stream* stream = nullptr;
  size_t position = 0;             // tasks of the stream that were queued before it, counted from its creation
  double time = 0;
  unsigned flags = 0;
};
// Of events: who waits sleeps; the place's time is not noted.
enum { BLOCKING_SYNC = 1, DISABLE_TIMING = 2 };
struct Graph { Tasks tasks; };
// `mapped`: with the margin, whole pages. `written`: some kernel may have.
struct Allocation { size_t bytes, mapped; u8* memory; void* context; bool written; };
std::map<const u8*, size_t> pinned;   // of the host, read by the device when a copy's turn comes

const size_t MARGIN = 256, PAGE = 4096;

std::recursive_mutex lock;
std::map<Pointer, Allocation> device;
std::vector<Stream*> streams;
std::set<Event*> events;
std::map<Stream*, std::pair<size_t, size_t>> counts;  // queued, done
Result sticky = SUCCESS;
thread_local void* current;
thread_local Stream* recorder;     // that this thread records on
// By calls of a thread.
struct Done {
  u64 frees;    // of memory: each waits for all streams
  u64 replays;  // graphs that were queued
  u64 ran;      // kernels that were run because it waited, whoever queued them
  u64 blocks;   // of the kernels that it queued
  u64 deepest;  // the most work that a stream had when it queued some
  u64 waits;    // for events
  u64 spins;    // those of them that keep a processor busy
};
thread_local Done done;
int contexts[2];

#define GUARD std::lock_guard<std::recursive_mutex> guard(lock)

// What a stream that records refuses ends the recording.
Result unsupported(Stream* s) { s->lost = true; return CAPTURE_UNSUPPORTED; }
// A thread that records is refused whatever may wait for the device; others are not.
#define NOT_WHILE_RECORDING if (recorder) return unsupported(recorder)

// Every allocation's margin is as it was made: no kernel wrote beyond its end.
Result margins() {
  for (auto& [at, a] : device)
    for (size_t i = 0; i < MARGIN; i++)
      if (a.memory[a.bytes + i] != 0xff) {
        fprintf(stderr, "stand-in driver: byte %zu of an allocation of %zu bytes was written\n", a.bytes + i, a.bytes);
        memset(a.memory + a.bytes, 0xff, MARGIN);
        return sticky = ILLEGAL_ADDRESS;
      }
  return SUCCESS;
}

// The allocation that an address lies in, margin included; or null.
Allocation* holder(Pointer p) {
  auto it = device.upper_bound(p);
  if (it == device.begin()) return nullptr;
  --it;
  return p - it->first < it->second.mapped ? &it->second : nullptr;
}

// `context`: no work of one GPU is done on the memory of another, so far as arguments show it.
bool inside(Pointer p, size_t bytes, void* context) {
  const Allocation* a = holder(p);
  return a && p - (Pointer)a->memory + bytes <= a->bytes && a->context == context;
}

// Notes what a kernel may write, by the types of its parameters.
void note_writes(const emu::Kernel* k, const std::vector<void*>& at) {
  const auto note = [](Pointer p) { if (Allocation* a = holder(p)) a->written = true; };
  for (size_t i = 0; i < at.size(); i++) {
    if (k->uses[i] == emu::WRITES) note(*(Pointer*)at[i]);
    if (k->uses[i] != emu::POINTERS) continue;
    for (size_t word = 0; word < k->sizes[i] / 8; word++) note(((Pointer*)at[i])[word]);
  }
}

// ---- kernels that may begin before those before them have ended

std::atomic<const void*> reached;
struct sigaction others;

// Memory that was reached is shown again, so that the kernel goes on.
void on_fault(int number, siginfo_t* info, void* context) {
  if (Allocation* a = holder((Pointer)info->si_addr)) {
    reached = info->si_addr;
    mprotect(a->memory, a->mapped, PROT_READ | PROT_WRITE);
  } else if (others.sa_flags & SA_SIGINFO) {
    others.sa_sigaction(number, info, context);
  } else {
    sigaction(SIGSEGV, &others, nullptr);
  }
}

void protect(int how) {
  for (auto& [at, a] : device) mprotect(a.memory, a.mapped, how);
}

// Runs the part of a kernel before its waits with all memory hidden: what it reads a kernel might still write, what it writes one
// might still read, whatever comes before it in this run. Allowed are bulk copies (TMA) of what no kernel has written: weights.
bool too_early(const emu::Kernel* k, const std::function<bool()>& until_wait) {
  reached = nullptr;
  emu::written = [](const void* p) {
    const Allocation* a = holder((Pointer)p);
    return !a || a->written;
  };
  struct sigaction ours = {};
  ours.sa_sigaction = on_fault;
  ours.sa_flags = SA_SIGINFO | SA_ONSTACK;
  sigaction(SIGSEGV, &ours, &others);
  protect(PROT_NONE);
  const bool ran = until_wait();
  protect(PROT_READ | PROT_WRITE);
  sigaction(SIGSEGV, &others, nullptr);
  if (reached) fprintf(stderr, "stand-in driver: kernel %s reaches memory before it waits for the kernels before it\n", k->name);
  return !ran || reached;
}

void step(Stream* s) {
  Task task = std::move(s->queue.front());
  s->queue.pop_front();
  counts[s].second++;
  Result r = task.work();
  if (r != SUCCESS && sticky == SUCCESS) sticky = r;
}

void drain(Stream* s) { while (!s->queue.empty()) step(s); }
// A stream that is gone had done everything.
void drain_to(Stream* s, size_t position) {
  if (std::find(streams.begin(), streams.end(), s) == streams.end()) return;
  while (counts[s].second < position && !s->queue.empty()) step(s);
}
void drain_all() { for (Stream* s : streams) drain(s); }

Result enqueue(Stream* s, std::function<Result()> work) {
  if (!s) return INVALID_HANDLE;
  if (s->lost) return CAPTURE_INVALIDATED;
  if (s->capture) { s->capture->push_back({std::move(work)}); return SUCCESS; }
  s->queue.push_back({std::move(work)});
  done.deepest = std::max(done.deepest, (u64)s->queue.size());
  counts[s].first++;
  return sticky;
}

std::pair<int, int> compute() {
  int major = 9, minor = 0;
  if (const char* text = getenv("NEXTSTATE_EMULATED_COMPUTE")) sscanf(text, "%d.%d", &major, &minor);
  return {major, minor};
}

// Bytes of shared memory that a block has without asking, static ones included, and that it can ask for.
const int PLAIN_SHARED = 48 * 1024;
int most_shared() {
  const auto [major, minor] = compute();
  return (major == 8 && minor > 0 ? 99 : major == 8 ? 163 : 227) * 1024;
}

// Whether copies read pageable memory when their turn comes.
bool reads_host() { return getenv("NEXTSTATE_EMULATED_HOST_PAGES"); }

Result launch(const emu::Kernel* k, emu::Index grid, unsigned threads, size_t smem, Stream* s, void** params, bool early) {
  if (!k) return INVALID_HANDLE;
  if (grid.x < 1 || grid.y < 1 || grid.z < 1 || threads < 1 || threads > 1024) return INVALID_VALUE;
  if (grid.y > 65535 || grid.z > 65535) return INVALID_VALUE;
  const bool granted = (int)smem <= k->granted;
  const size_t allowed = granted ? most_shared() : PLAIN_SHARED;
  if (smem > allowed) return INVALID_VALUE;
  // A driver copies the parameters before it returns.
  auto copies = std::make_shared<std::vector<std::vector<ns_tmap>>>();
  for (size_t i = 0; i < k->sizes.size(); i++) {
    // In the units of the largest alignment that a parameter has.
    std::vector<ns_tmap> copy(k->sizes[i] / sizeof(ns_tmap) + 1);
    memcpy(copy.data(), params[i], k->sizes[i]);
    copies->push_back(std::move(copy));
  }
  done.blocks += (u64)grid.x * grid.y * grid.z;
  return enqueue(s, [=]() -> Result {
    done.ran++;
    std::vector<void*> at;
    for (auto& c : *copies) at.push_back(c.data());
    note_writes(k, at);
    std::function<void()> body = [&] { k->call(at.data()); };
    const auto run = [&](emu::Part part) { return emu::run(grid, (int)threads, smem, allowed, body, part); };
    if ((early && too_early(k, [&] { return run(emu::UNTIL_WAIT); })) || !run(emu::ALL)) {
      fprintf(stderr, "stand-in driver: kernel %s failed\n", k->name);
      return LAUNCH_FAILED;
    }
    return margins();
  });
}

}  // namespace

#define API extern "C" __attribute__((visibility("default"))) Result

// What the calling thread has had done so far; no driver has this.
extern "C" __attribute__((visibility("default"))) void ns_done(Done* to) { *to = done; }

// ---- the driver and its device

API cuInit(unsigned) { return getenv("NEXTSTATE_EMULATED_NONE") ? NO_DEVICE : SUCCESS; }
API cuDriverGetVersion(int* v) {
  const char* text = getenv("NEXTSTATE_EMULATED_DRIVER");
  *v = text ? atoi(text) : 13000;
  return SUCCESS;
}
API cuDeviceGetCount(int* n) { *n = 2; return SUCCESS; }
API cuDeviceGet(int* d, int i) { *d = i; return i == 0 || i == 1 ? SUCCESS : INVALID_DEVICE; }
API cuDeviceGetName(char* s, int n, int) { snprintf(s, n, "emulated GPU"); return SUCCESS; }
API cuDeviceTotalMem_v2(size_t* n, int) { *n = (size_t)1 << 30; return SUCCESS; }
API cuDeviceGetAttribute(int* v, int attribute, int) {
  switch (attribute) {
    case 75: *v = compute().first; break;
    case 76: *v = compute().second; break;
    case 16: *v = 4; break;             // multiprocessors
    case 97: *v = most_shared(); break;    // shared memory a block may ask for
    case 100: *v = reads_host(); break;    // uses the host's page tables
    default: return INVALID_VALUE;
  }
  return SUCCESS;
}
API cuDevicePrimaryCtxRetain(void** c, int d) { *c = &contexts[d]; return SUCCESS; }
API cuDevicePrimaryCtxRelease_v2(int) { return SUCCESS; }
API cuCtxSetCurrent(void* c) { current = c; return SUCCESS; }
API cuCtxGetCurrent(void** c) { *c = current; return SUCCESS; }
API cuCtxSynchronize() { GUARD; drain_all(); return sticky; }
API cuCtxGetStreamPriorityRange(int* least, int* greatest) { *least = 0; *greatest = -5; return SUCCESS; }
API cuGetErrorName(int code, const char** s) {
  static const std::map<int, const char*> names{
      {INVALID_VALUE, "CUDA_ERROR_INVALID_VALUE"}, {OUT_OF_MEMORY, "CUDA_ERROR_OUT_OF_MEMORY"},
      {NO_DEVICE, "CUDA_ERROR_NO_DEVICE"}, {INVALID_DEVICE, "CUDA_ERROR_INVALID_DEVICE"},
      {INVALID_CONTEXT, "CUDA_ERROR_INVALID_CONTEXT"}, {INVALID_HANDLE, "CUDA_ERROR_INVALID_HANDLE"},
      {NOT_FOUND, "CUDA_ERROR_NOT_FOUND"}, {ILLEGAL_ADDRESS, "CUDA_ERROR_ILLEGAL_ADDRESS"},
      {LAUNCH_FAILED, "CUDA_ERROR_LAUNCH_FAILED"}, {CAPTURE_UNSUPPORTED, "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED"},
      {CAPTURE_INVALIDATED, "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED"}};
  auto it = names.find(code);
  if (it == names.end()) return INVALID_VALUE;
  *s = it->second;
  return SUCCESS;
}

// ---- memory

API cuMemAlloc_v2(Pointer* p, size_t n) {
  GUARD;
  NOT_WHILE_RECORDING;
  if (!current) return INVALID_CONTEXT;
  if (n == 0) return INVALID_VALUE;
  if (n > (size_t)1 << 30) return OUT_OF_MEMORY;
  const size_t mapped = (n + MARGIN + PAGE - 1) / PAGE * PAGE;
  void* memory = mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return OUT_OF_MEMORY;
  memset(memory, 0xff, mapped);
  *p = (Pointer)memory;
  device[*p] = {n, mapped, (u8*)memory, current, false};
  return SUCCESS;
}
API cuMemFree_v2(Pointer p) {
  GUARD;
  NOT_WHILE_RECORDING;
  done.frees++;
  drain_all();
  auto it = device.find(p);
  if (it == device.end()) return INVALID_VALUE;
  Result r = margins();
  munmap(it->second.memory, it->second.mapped);
  device.erase(it);
  return r;
}
API cuMemGetInfo_v2(size_t* available, size_t* total) {
  GUARD;
  *total = *available = (size_t)1 << 30;
  for (auto& [at, a] : device) *available -= std::min(*available, a.bytes);
  return SUCCESS;
}
API cuMemHostAlloc(void** p, size_t n, unsigned flags) {
  GUARD;
  NOT_WHILE_RECORDING;
  if (!current) return INVALID_CONTEXT;
  if (n == 0 || flags != 0) return INVALID_VALUE;
  *p = malloc(n);
  pinned[(const u8*)*p] = n;
  return SUCCESS;
}
API cuMemFreeHost(void* p) {
  GUARD;
  NOT_WHILE_RECORDING;
  if (!pinned.erase((const u8*)p)) return INVALID_VALUE;
  free(p);
  return SUCCESS;
}
API cuMemcpyHtoDAsync_v2(Pointer d, const void* source, size_t n, Stream* s) {
  GUARD;
  if (!s || !inside(d, n, s->context)) return INVALID_VALUE;
  if (s->capture) return unsupported(s);
  auto at = pinned.upper_bound((const u8*)source);
  if (reads_host() || (at != pinned.begin() && (--at, (const u8*)source + n <= at->first + at->second)))
    return enqueue(s, [=] { memcpy((void*)d, source, n); return SUCCESS; });
  // Other pageable memory is staged before the call returns.
  auto staged = std::make_shared<std::vector<u8>>((const u8*)source, (const u8*)source + n);
  return enqueue(s, [=] { memcpy((void*)d, staged->data(), n); return SUCCESS; });
}
API cuMemcpyDtoHAsync_v2(void* to, Pointer d, size_t n, Stream* s) {
  GUARD;
  if (!s || !inside(d, n, s->context)) return INVALID_VALUE;
  if (s->capture) return unsupported(s);
  return enqueue(s, [=] { memcpy(to, (void*)d, n); return SUCCESS; });
}
API cuMemcpyDtoDAsync_v2(Pointer to, Pointer from, size_t n, Stream* s) {
  GUARD;
  if (!s || !inside(to, n, s->context) || !inside(from, n, s->context)) return INVALID_VALUE;
  return enqueue(s, [=] { memmove((void*)to, (void*)from, n); return SUCCESS; });
}
API cuMemsetD8Async(Pointer d, unsigned char value, size_t n, Stream* s) {
  GUARD;
  if (!s || !inside(d, n, s->context)) return INVALID_VALUE;
  return enqueue(s, [=] { memset((void*)d, value, n); return SUCCESS; });
}

// ---- streams and events

API cuStreamCreateWithPriority(Stream** s, unsigned flags, int) {
  GUARD;
  if (flags != 1) return INVALID_VALUE;  // the host code uses streams that do not wait for the default one
  *s = new Stream;
  (*s)->context = current;
  streams.push_back(*s);
  return SUCCESS;
}
API cuStreamDestroy_v2(Stream* s) {
  GUARD;
  drain(s);
  streams.erase(std::find(streams.begin(), streams.end(), s));
  counts.erase(s);
  // An event may outlive the stream that it was recorded on.
  for (Event* e : events) if (e->stream == s) e->stream = nullptr;
  delete s;
  return SUCCESS;
}
API cuStreamSynchronize(Stream* s) {
  GUARD;
  if (s->capture) return unsupported(s);
  drain(s);
  return sticky;
}
API cuEventCreate(Event** e, unsigned flags) {
  GUARD;
  *e = new Event;
  (*e)->flags = flags;
  events.insert(*e);
  return SUCCESS;
}
API cuEventDestroy_v2(Event* e) {
  GUARD;
  // The stream may still have to note its time.
  if (e->stream) drain_to(e->stream, e->position);
  events.erase(e);
  delete e;
  return SUCCESS;
}
static double now() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return 1e3 * t.tv_sec + 1e-6 * t.tv_nsec;
}
API cuEventRecord(Event* e, Stream* s) {
  GUARD;
  if (s->capture) return unsupported(s);  // the host code refuses it before
  Result r = enqueue(s, [=] { e->time = now(); return SUCCESS; });
  e->stream = s;
  e->position = counts[s].first;
  return r;
}
API cuEventSynchronize(Event* e) {
  GUARD;
  NOT_WHILE_RECORDING;
  done.waits++;
  done.spins += !(e->flags & BLOCKING_SYNC);
  if (e->stream) drain_to(e->stream, e->position);
  return sticky;
}
API cuEventElapsedTime_v2(float* ms, Event* from, Event* to) {
  if ((from->flags | to->flags) & DISABLE_TIMING) return INVALID_HANDLE;
  *ms = (float)(to->time - from->time);
  return SUCCESS;
}
API cuStreamWaitEvent(Stream* s, Event* e, unsigned) {
  GUARD;
  if (s->capture) return CAPTURE_INVALIDATED;
  Stream* other = e->stream;
  size_t position = e->position;
  return enqueue(s, [=] { if (other) drain_to(other, position); return SUCCESS; });
}

// ---- modules and launches

API cuModuleLoadData(void** m, const void* image) {
  if (!image) return INVALID_VALUE;
  *m = &contexts[0];
  return SUCCESS;
}
API cuModuleUnload(void*) { return SUCCESS; }
API cuModuleGetFunction(const emu::Kernel** f, void*, const char* name) {
  for (auto& k : emu::kernels())
    if (!strcmp(k.name, name)) { *f = &k; return SUCCESS; }
  return NOT_FOUND;
}
API cuFuncGetParamInfo(const emu::Kernel* f, size_t index, size_t* offset, size_t* size) {
  if (index >= f->sizes.size()) return INVALID_VALUE;
  size_t at = 0;
  for (size_t i = 0; i <= index; i++) {
    size_t alignment = f->sizes[i] > 8 ? 64 : f->sizes[i];
    at = (at + alignment - 1) / alignment * alignment;
    *offset = at;
    at += f->sizes[i];
  }
  *size = f->sizes[index];
  return SUCCESS;
}
API cuFuncSetAttribute(const emu::Kernel* f, int which, int value) {
  const int DYNAMIC_SHARED = 8;
  if (!f) return INVALID_HANDLE;
  if (value > most_shared()) return INVALID_VALUE;
  if (which == DYNAMIC_SHARED) f->granted = value;
  return SUCCESS;
}
API cuLaunchKernel(const emu::Kernel* k, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                   unsigned smem, Stream* s, void** params, void**) {
  GUARD;
  if (by != 1 || bz != 1) return INVALID_VALUE;
  return launch(k, {(int)gx, (int)gy, (int)gz}, bx, smem, s, params, false);
}
struct Attribute { int id; char padding[4]; int value; char rest[60]; };
struct LaunchConfig { unsigned gx, gy, gz, bx, by, bz, smem; Stream* stream; Attribute* attributes; unsigned count; };
API cuLaunchKernelEx(const LaunchConfig* c, const emu::Kernel* k, void** params, void**) {
  GUARD;
  const int PROGRAMMATIC_STREAM_SERIALIZATION = 6;
  if (c->by != 1 || c->bz != 1) return INVALID_VALUE;
  bool early = false;
  for (unsigned i = 0; i < c->count; i++) {
    if (c->attributes[i].id != PROGRAMMATIC_STREAM_SERIALIZATION) return INVALID_VALUE;
    early = early || c->attributes[i].value;
  }
  return launch(k, {(int)c->gx, (int)c->gy, (int)c->gz}, c->bx, c->smem, c->stream, params, early);
}
// Type 9 is bf16. Interleave, L2 promotion and the fill are accepted and do nothing.
API cuTensorMapEncodeTiled(ns_tmap* map, int type, unsigned rank, void* base, const u64* dims, const u64* strides,
                           const u32* box, const u32* element_strides, int, int swizzle, int, int) {
  GUARD;
  u32 bytes = type == 9 ? 2 : type == 7 ? 4 : 0;
  if (!bytes || rank < 2 || rank > 5 || (u64)base % 16) return INVALID_VALUE;
  emu::TensorMap m = {};
  m.base = (const u8*)base;
  m.rank = rank;
  m.element = bytes;
  size_t extent = dims[0] * bytes;
  for (unsigned d = 0; d < rank; d++) {
    if (element_strides[d] != 1 || box[d] < 1 || box[d] > 256 || dims[d] < 1) return INVALID_VALUE;
    m.dim[d] = dims[d];
    m.box[d] = box[d];
    if (d) {
      if (strides[d - 1] % 16) return INVALID_VALUE;
      m.stride[d - 1] = strides[d - 1];
      extent += (dims[d] - 1) * strides[d - 1];
    }
  }
  const u32 swizzles[] = {0, 32, 64, 128};
  if (swizzle < 0 || swizzle > 3) return INVALID_VALUE;
  m.swizzle = swizzles[swizzle];
  if (m.swizzle && box[0] * bytes > m.swizzle) return INVALID_VALUE;
  if (box[0] * bytes % 16 || !inside((Pointer)base, extent, current)) return INVALID_VALUE;
  memset(map, 0, sizeof *map);
  memcpy(map, &m, sizeof m);
  return SUCCESS;
}

// ---- graphs

API cuStreamBeginCapture_v2(Stream* s, int mode) {
  GUARD;
  const int THREAD_LOCAL = 1;
  if (s->capture || recorder || mode != THREAD_LOCAL) return INVALID_VALUE;
  s->capture = std::make_shared<Tasks>();
  recorder = s;
  return SUCCESS;
}
API cuStreamEndCapture(Stream* s, Graph** g) {
  GUARD;
  auto tasks = s->capture;
  if (!tasks || recorder != s) return INVALID_VALUE;
  s->capture = nullptr;
  recorder = nullptr;
  *g = nullptr;
  if (std::exchange(s->lost, false)) return CAPTURE_INVALIDATED;
  *g = new Graph{*tasks};
  return SUCCESS;
}
API cuGraphInstantiateWithFlags(Graph** e, Graph* g, unsigned long long) { *e = new Graph(*g); return SUCCESS; }
API cuGraphDestroy(Graph* g) { delete g; return SUCCESS; }
API cuGraphExecDestroy(Graph* g) { GUARD; drain_all(); delete g; return SUCCESS; }
API cuGraphLaunch(Graph* g, Stream* s) {
  GUARD;
  done.replays++;
  return enqueue(s, [=] {
    for (auto& t : g->tasks)
      if (Result r = t.work()) return r;
    return (Result)SUCCESS;
  });
}
