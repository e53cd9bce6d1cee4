// Host memory whose pages are used again. The system clears each page that it hands out, and a virtual machine may have
// to ask its host for it: that takes longer than most kernels need to fill it. So released blocks are kept for others
// of the same size, and their pages are moved into blocks of any size where there is none.
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

  // Blocks below kPaged bytes are the heap's.
  void* allocate(size_t bytes) override;
  void release(void* block, size_t bytes) noexcept override;
  // What is kept for later blocks. With what is in use it is never more than was in use at some time.
  size_t bytes_kept() const;

  static constexpr size_t kPaged = size_t{256} << 10;

 private:
  // Pages that lie side by side and were mapped or moved as one: the system moves no others as one.
  using Extents = std::map<std::byte*, size_t>;              // bytes by address
  using Blocks = std::map<std::byte*, std::vector<size_t>>;  // the sizes of a block's extents, in order, by address

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
  // Kept: blocks as they were, for others of the same size, and extents.
  Blocks whole_;
  Extents kept_;
  size_t kept_bytes_ = 0, used_bytes_ = 0, most_used_ = 0;
};

// What host_memory() keeps for later blocks: it counts as memory of the process.
int64_t host_bytes_kept();

}  // namespace gptq
