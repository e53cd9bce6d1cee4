#include "tensor/page_memory.h"

#include <cstring>
#include <thread>
#include <utility>

#include <gtest/gtest.h>

namespace gptq {
namespace {

constexpr size_t kMiB = size_t{1} << 20;

// A block filled with `value`; checks on release that it is unchanged.
class Block {
 public:
  Block(PageMemory& memory, size_t bytes, int value) : memory_(memory), bytes_(bytes), value_(value) {
    data_ = static_cast<std::byte*>(memory.allocate(bytes));
    EXPECT_EQ(reinterpret_cast<uintptr_t>(data_) % 64, 0U);
    std::memset(data_, value, bytes);
  }
  Block(Block&& other) noexcept
      : memory_(other.memory_),
        bytes_(other.bytes_),
        value_(other.value_),
        data_(std::exchange(other.data_, nullptr)) {}
  Block& operator=(Block&&) = delete;
  ~Block() {
    if (data_ == nullptr) return;
    size_t others = 0;
    for (size_t i = 0; i < bytes_; ++i) others += data_[i] != static_cast<std::byte>(value_);
    EXPECT_EQ(others, 0U) << bytes_ << " bytes of " << value_;
    memory_.release(data_, bytes_);
  }
  const std::byte* data() const { return data_; }

 private:
  PageMemory& memory_;
  size_t bytes_;
  int value_;
  std::byte* data_;
};

TEST(PageMemory, ABlockOfTheSameSizeTakesThePagesOfTheOneBefore) {
  PageMemory memory;
  { const Block released(memory, 3 * kMiB, 7); }
  EXPECT_EQ(memory.bytes_kept(), 3 * kMiB);
  const auto* pages = static_cast<const std::byte*>(memory.allocate(3 * kMiB));
  EXPECT_EQ(memory.bytes_kept(), 0U);
  EXPECT_EQ(pages[kMiB], std::byte{7});  // fresh pages are zero
  memory.release(const_cast<std::byte*>(pages), 3 * kMiB);
}

TEST(PageMemory, PagesOfSeveralBlocksGoIntoALargerOne) {
  constexpr size_t kSmall = 4 * kMiB + (kMiB >> 1), kLarge = 12 * kMiB + (kMiB >> 1);
  PageMemory memory;
  { const Block a(memory, kSmall, 1), b(memory, kSmall, 1), c(memory, kSmall, 1); }
  auto* block = static_cast<std::byte*>(memory.allocate(kLarge));
  EXPECT_EQ(memory.bytes_kept(), kMiB);
  for (size_t i = 0; i < kLarge; i += 4096) ASSERT_EQ(block[i], std::byte{1}) << i;
  memory.release(block, kLarge);
  EXPECT_EQ(memory.bytes_kept(), 3 * kSmall);
}

TEST(PageMemory, ABlockPutTogetherIsKeptAsItIs) {
  PageMemory memory;
  { const Block a(memory, 3 * kMiB, 1), b(memory, 3 * kMiB, 1), c(memory, 3 * kMiB, 1); }
  void* const block = memory.allocate(7 * kMiB);
  memory.release(block, 7 * kMiB);
  void* const again = memory.allocate(7 * kMiB);
  EXPECT_EQ(again, block);
  memory.release(again, 7 * kMiB);
}

TEST(PageMemory, PagesOfALargerBlockGoIntoSmallerOnesAndBack) {
  PageMemory memory;
  { const Block large(memory, 8 * kMiB, 1); }
  for (int round = 0; round < 3; ++round) {
    {
      const Block a(memory, 3 * kMiB, 2), b(memory, 2 * kMiB, 3), c(memory, 3 * kMiB, 4);
      EXPECT_EQ(memory.bytes_kept(), 0U);
    }
    EXPECT_EQ(memory.bytes_kept(), 8 * kMiB);
    const Block large(memory, 8 * kMiB, 5);
    EXPECT_EQ(memory.bytes_kept(), 0U);
  }
}

// Used plus cached bytes never exceed the peak in use.
TEST(PageMemory, KeepsNoMoreThanWasOnceInUse) {
  PageMemory memory;
  { const Block a(memory, 4 * kMiB, 1), b(memory, 4 * kMiB, 2); }
  EXPECT_EQ(memory.bytes_kept(), 8 * kMiB);
  const Block c(memory, 6 * kMiB, 3);
  EXPECT_EQ(memory.bytes_kept(), 2 * kMiB);
  const Block d(memory, 7 * kMiB, 4);  // 13 MiB in use: a new peak
  EXPECT_EQ(memory.bytes_kept(), 0U);
}

TEST(PageMemory, AwkwardSizesKeepTheirContents) {
  PageMemory memory;
  std::vector<Block> blocks;
  uint64_t random = 1;
  for (int i = 0; i < 2000; ++i) {
    random = random * 6364136223846793005U + 1442695040888963407U;
    if (blocks.size() < 12 && (random >> 40) % 2 == 0) {
      blocks.emplace_back(memory, kMiB - 1 + (random >> 33) % (3 * kMiB), i % 251);
    } else if (!blocks.empty()) {
      std::vector<Block> kept;
      const size_t gone = (random >> 45) % blocks.size();
      for (size_t b = 0; b < blocks.size(); ++b) {
        if (b != gone) kept.push_back(std::move(blocks[b]));
      }
      blocks.swap(kept);
    }
  }
}

TEST(PageMemory, ThreadsShareIt) {
  PageMemory memory;
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&memory, t] {
      for (size_t i = 0; i < 50; ++i) const Block block(memory, kMiB + (i * 37 % 11) * 300000, t + 1);
    });
  }
  for (std::thread& thread : threads) thread.join();
}

}  // namespace
}  // namespace gptq
