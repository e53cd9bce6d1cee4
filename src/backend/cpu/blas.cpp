#include "backend/cpu/blas.h"

#include <algorithm>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <string>
#include <vector>

#include <cblas.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include "base/error.h"
#include "base/resources.h"

// OpenBLAS's own; not declared in its headers, and hidden in some builds.
// NOLINTBEGIN(readability-identifier-naming)
extern "C" {
__attribute__((weak)) void* blas_memory_alloc(int position);
__attribute__((weak)) void blas_memory_free(void* buffer);
}
// NOLINTEND(readability-identifier-naming)

namespace gptq::cpu {
namespace {

constexpr size_t kBufferBytes = size_t{128} << 20;
// What else may be mapped between the look for room and its use.
constexpr size_t kMargin = size_t{8} << 20;
// What buffers that are reserved in advance leave for the matrices and threads of a run.
constexpr size_t kLeft = kBufferBytes;

// Of the process, as OpenBLAS and its buffers are.
struct Buffers {
  std::mutex mutex;
  std::condition_variable changed;
  int count = 0, taken = 0;
};

Buffers& buffers() {
  static Buffers all;
  return all;
}

bool has_room(size_t bytes) {
  void* place = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (place == MAP_FAILED) return false;
  munmap(place, bytes);
  return true;
}

// None of `all` is taken. Holding those that are there makes OpenBLAS map another. `spare`: bytes that it leaves.
void add_buffers(Buffers& all, int wanted, size_t spare) {
  if (blas_memory_alloc == nullptr || blas_memory_free == nullptr) {
    while (all.count < wanted && has_room(kBufferBytes * static_cast<size_t>(all.count + 1) + spare)) ++all.count;
    return;
  }
  std::vector<void*> held;
  held.reserve(static_cast<size_t>(wanted));
  for (int i = 0; i < wanted && (i < all.count || has_room(kBufferBytes + spare)); ++i)
    held.push_back(blas_memory_alloc(0));
  all.count = std::max(all.count, static_cast<int>(held.size()));
  for (void* buffer : held) blas_memory_free(buffer);
}

std::string limit_text(const char* flag, int resource, int64_t taken) {
  rlimit limit{};
  if (getrlimit(static_cast<__rlimit_resource_t>(resource), &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return {};
  return cat("; ulimit ", flag, " allows ", limit.rlim_cur, " bytes, of which ", taken, " are taken");
}

OutOfMemory no_buffer() {
  const AddressSpace space = address_space();
  return OutOfMemory(cat("cpu is out of address space: OpenBLAS needs ", kBufferBytes + kMargin,
                         " bytes of it for a buffer, which the system refuses",
                         limit_text("-v", RLIMIT_AS, space.bytes), limit_text("-d", RLIMIT_DATA, space.data_bytes),
                         ": allow more"));
}

}  // namespace

void prepare_blas(int calls) {
  openblas_set_num_threads(1);
  Buffers& all = buffers();
  std::unique_lock lock(all.mutex);
  all.changed.wait(lock, [&] { return all.taken == 0; });
  if (all.count < calls) add_buffers(all, calls, kLeft);
  all.changed.notify_all();
}

BlasCall::BlasCall() {
  Buffers& all = buffers();
  std::unique_lock lock(all.mutex);
  if (all.count == 0) add_buffers(all, 1, kMargin);
  if (all.count == 0) throw no_buffer();
  all.changed.wait(lock, [&] { return all.taken < all.count; });
  ++all.taken;
}

BlasCall::~BlasCall() {
  Buffers& all = buffers();
  {
    std::lock_guard lock(all.mutex);
    --all.taken;
  }
  all.changed.notify_all();
}

}  // namespace gptq::cpu
