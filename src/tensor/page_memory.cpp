#include "tensor/page_memory.h"

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <new>
#include <numeric>

#include <sys/mman.h>
#include <unistd.h>

#include "base/error.h"
#include "base/rounding.h"

namespace gptq {
namespace {

constexpr size_t kHuge = size_t{2} << 20;  // a huge page

// Smaller extents go back to the system, and a block has at most this many: the system limits a process's mappings.
constexpr size_t kLeastExtent = PageMemory::kPaged;
constexpr size_t kMostExtents = 16;

size_t whole_pages(size_t bytes) {
  static const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  return rounded_up(bytes, page);
}

// Fresh pages, at `place` if given; nullptr if there is no memory. Blocks are aligned to huge pages and use them where
// possible: each TLB entry then covers 2 MB.
std::byte* map_pages(size_t bytes, std::byte* place = nullptr) {
  const int fixed = place == nullptr ? 0 : MAP_FIXED;
  const size_t spare = place == nullptr && bytes >= kHuge ? kHuge : 0;
  void* pages = mmap(place, bytes + spare, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | fixed, -1, 0);
  if (pages == MAP_FAILED) return nullptr;
  auto* const start = static_cast<std::byte*>(pages);
  const size_t before =
      spare == 0 ? 0 : rounded_up(reinterpret_cast<uintptr_t>(start), kHuge) - reinterpret_cast<uintptr_t>(start);
  if (before > 0) munmap(start, before);
  if (spare > before) munmap(start + before + bytes, spare - before);
  madvise(start + before, bytes, MADV_HUGEPAGE);
  return start + before;
}

// Moves pages over existing ones with mremap(). After a failure the destination mapping is undefined.
bool move_pages(std::byte* from, size_t bytes, std::byte* to) {
  return mremap(from, bytes, bytes, MREMAP_MAYMOVE | MREMAP_FIXED, to) != MAP_FAILED;
}

size_t size_of(const std::vector<size_t>& extents) {
  return std::accumulate(extents.begin(), extents.end(), size_t{0});
}

}  // namespace

PageMemory::~PageMemory() { give_back_kept(); }

void PageMemory::give_back_kept() {
  while (!whole_.empty()) break_up(whole_.begin());
  for (const auto& [start, bytes] : kept_) munmap(start, bytes);
  kept_.clear();
  kept_bytes_ = 0;
}

void* PageMemory::allocate(size_t bytes) {
  void* block = nullptr;
  if (bytes < kPaged) {
    constexpr size_t kAlignment = 64;
    block = std::aligned_alloc(kAlignment, rounded_up(std::max<size_t>(bytes, 1), kAlignment));
  } else {
    std::lock_guard lock(mutex_);
    const size_t size = whole_pages(bytes);
    std::byte* pages = take_whole(size);
    if (pages == nullptr) pages = compose(size);
    if (pages == nullptr) {  // too little memory, or too many mappings
      give_back_kept();
      pages = compose(size);
    }
    if (pages != nullptr) {
      used_bytes_ += size;
      most_used_ = std::max(most_used_, used_bytes_);
      drop_surplus();
    }
    block = pages;
  }
  if (block == nullptr) throw OutOfMemory(cat("out of host memory: ", bytes, " bytes asked for"));
  return block;
}

void PageMemory::release(void* block, size_t bytes) noexcept {
  if (bytes < kPaged) return std::free(block);
  std::lock_guard lock(mutex_);
  const size_t size = whole_pages(bytes);
  whole_.insert(blocks_.extract(static_cast<std::byte*>(block)));
  kept_bytes_ += size;
  used_bytes_ -= size;
  drop_surplus();
}

size_t PageMemory::bytes_kept() const {
  std::lock_guard lock(mutex_);
  return kept_bytes_;
}

// A cached block of exactly this size, or nullptr.
std::byte* PageMemory::take_whole(size_t bytes) {
  const auto found =
      std::find_if(whole_.begin(), whole_.end(), [&](const auto& block) { return size_of(block.second) == bytes; });
  if (found == whole_.end()) return nullptr;
  std::byte* const start = found->first;
  blocks_.insert(whole_.extract(found));
  kept_bytes_ -= bytes;
  return start;
}

// Turns a cached block into single extents.
void PageMemory::break_up(Blocks::iterator whole) noexcept {
  const auto block = whole_.extract(whole);
  kept_bytes_ -= size_of(block.mapped());
  std::byte* start = block.key();
  for (const size_t extent : block.mapped()) {
    keep(start, extent);
    start += extent;
  }
}

// For a huge page or more the largest extent of huge pages; for less the smallest extent that is large enough.
PageMemory::Extents::iterator PageMemory::best_for(size_t bytes) {
  auto best = kept_.end();
  for (auto extent = kept_.begin(); extent != kept_.end(); ++extent) {
    const size_t size = extent->second, best_size = best == kept_.end() ? 0 : best->second;
    const bool is_better = bytes >= kHuge ? size >= kHuge && size > best_size
                                          : size >= bytes && size < kHuge && (best_size == 0 || size < best_size);
    if (is_better) best = extent;
  }
  return best;
}

// Maps fresh pages and moves cached ones over them: whole huge pages first, as large extents are aligned to them, then
// the remainder from small extents. nullptr if there is no memory.
std::byte* PageMemory::compose(size_t bytes) {
  const auto bytes_in_extents = [&] {
    return std::accumulate(kept_.begin(), kept_.end(), size_t{0},
                           [](size_t sum, const auto& extent) { return sum + extent.second; });
  };
  while (bytes_in_extents() < bytes && !whole_.empty()) break_up(whole_.begin());
  std::byte* const block = map_pages(bytes);
  if (block == nullptr) return nullptr;
  std::vector<size_t> extents;
  size_t filled = 0;
  bool is_whole = true;
  while (bytes - filled >= kLeastExtent && extents.size() < kMostExtents) {
    const size_t missing = bytes - filled;
    const auto kept = best_for(missing);
    if (kept == kept_.end()) break;
    const size_t size = missing < kHuge ? missing : std::min(missing, kept->second) / kHuge * kHuge;
    is_whole = move_pages(kept->first, size, block + filled);
    if (!is_whole) break;
    take_front(kept, size);
    extents.push_back(size);
    filled += size;
  }
  if (!is_whole && map_pages(bytes - filled, block + filled) == nullptr) {
    munmap(block, bytes);
    return nullptr;
  }
  if (filled < bytes) extents.push_back(bytes - filled);
  blocks_[block] = std::move(extents);
  return block;
}

// Caches an extent, or unmaps it if it is too small.
void PageMemory::keep(std::byte* start, size_t bytes) noexcept {
  bool is_kept = false;
  try {
    is_kept = bytes >= kLeastExtent && kept_.emplace(start, bytes).second;
  } catch (const std::bad_alloc&) {  // no memory to record it
  }
  if (is_kept)
    kept_bytes_ += bytes;
  else
    munmap(start, bytes);
}

// Removes the front of an extent, whose pages have moved.
void PageMemory::take_front(Extents::iterator kept, size_t bytes) {
  const auto [start, size] = *kept;
  kept_.erase(kept);
  kept_bytes_ -= size;
  if (size > bytes) keep(start + bytes, size - bytes);
}

// Unmaps the smallest extents, and the end of the last one, until the bound of bytes_kept() holds.
void PageMemory::drop_surplus() {
  while (used_bytes_ + kept_bytes_ > most_used_) {
    if (kept_.empty()) {
      break_up(whole_.begin());
      continue;
    }
    const auto smallest =
        std::min_element(kept_.begin(), kept_.end(), [](const auto& a, const auto& b) { return a.second < b.second; });
    auto& [start, bytes] = *smallest;
    const size_t surplus = used_bytes_ + kept_bytes_ - most_used_;
    const size_t left = bytes >= surplus + kLeastExtent ? bytes - surplus : 0;
    munmap(start + left, bytes - left);
    kept_bytes_ -= bytes - left;
    bytes = left;
    if (left == 0) kept_.erase(smallest);
  }
}

namespace {

PageMemory& pages_of_host() {
  static PageMemory& memory = *new PageMemory;  // never destroyed: static objects may hold its memory until exit
  return memory;
}

}  // namespace

Memory& host_memory() { return pages_of_host(); }

int64_t host_bytes_kept() { return static_cast<int64_t>(pages_of_host().bytes_kept()); }

}  // namespace gptq
