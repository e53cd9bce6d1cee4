// Host memory that reuses its pages. The system clears every fresh page, and a virtual machine may have to fetch it
// from its host, which takes longer than most kernels take to fill it. So released blocks are cached and reused for
// blocks of the same size; where none fits, their pages are remapped into blocks of other sizes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>
#include <vector>

#include "tensor/matrix.h"

namespace gptq {

class PageMemory final : public Memory {
 public:
  PageMemory() = default;
  ~PageMemory() override;
  PageMemory(const PageMemory&) = delete;
  PageMemory& operator=(const PageMemory&) = delete;

  // Blocks below kPaged bytes come from the heap.
  void* allocate(size_t bytes) override;
  void release(void* block, size_t bytes) noexcept override;
  // Cached bytes. Cached plus used bytes never exceed the peak in use.
  size_t bytes_kept() const;

  static constexpr size_t kPaged = size_t{256} << 10;

 private:
  // An extent: adjacent pages of one mapping. mremap() moves no range that spans two mappings.
  using Extents = std::map<std::byte*, size_t>;              // bytes by address
  using Blocks = std::map<std::byte*, std::vector<size_t>>;  // by address: the sizes of a block's extents, in order

  std::byte* take_whole(size_t bytes);
  void break_up(Blocks::iterator whole) noexcept;
  Extents::iterator best_for(size_t bytes);
  std::byte* compose(size_t bytes);
  void keep(std::byte* start, size_t bytes) noexcept;
  void take_front(Extents::iterator kept, size_t bytes);
  void drop_surplus();
  void give_back_kept();

  mutable std::mutex mutex_;
  Blocks blocks_;  // in use
  // Cached: whole blocks, and extents of blocks that were broken up.
  Blocks whole_;
  Extents kept_;
  size_t kept_bytes_ = 0, used_bytes_ = 0, most_used_ = 0;
};

// Bytes that host_memory() caches; they count as memory of the process.
int64_t host_bytes_kept();

}  // namespace gptq
