#include "tensor/memory_pool.h"

#include <gtest/gtest.h>

#include "base/error.h"

namespace gptq {
namespace {

// Host memory of limited size that counts the bytes in use.
class CountingMemory final : public Memory {
 public:
  explicit CountingMemory(size_t limit = 1 << 30) : limit_(limit) {}
  void* allocate(size_t bytes) override {
    if (out + bytes > limit_) throw OutOfMemory("no room");
    out += bytes;
    ++requests;
    return host_memory().allocate(bytes);
  }
  void release(void* block, size_t bytes) noexcept override {
    out -= bytes;
    host_memory().release(block, bytes);
  }
  size_t out = 0;
  int requests = 0;

 private:
  size_t limit_;
};

TEST(MemoryPool, ReusesABlockOfTheSameSize) {
  CountingMemory source;
  MemoryPool pool(source);
  void* first = pool.allocate(4096);
  pool.release(first, 4096);
  EXPECT_EQ(pool.bytes_held(), 4096U);
  EXPECT_EQ(pool.allocate(4096), first);
  EXPECT_EQ(source.requests, 1);
  pool.release(first, 4096);
}

TEST(MemoryPool, TrimGivesEverythingBack) {
  CountingMemory source;
  MemoryPool pool(source);
  { const Matrix a(pool, DType::f32, 10, 10), b(pool, DType::f32, 20, 10); }
  EXPECT_GT(source.out, 0U);
  pool.trim();
  EXPECT_EQ(source.out, 0U);
  EXPECT_EQ(pool.bytes_held(), 0U);
}

TEST(MemoryPool, HoldsAFewBlocksOfASizeOnly) {
  CountingMemory source;
  MemoryPool pool(source);
  std::vector<Matrix> many;
  for (int i = 0; i < 100; ++i) many.emplace_back(pool, DType::f32, 16, 16);
  many.clear();
  EXPECT_LE(pool.bytes_held(), 4 * 16 * 16 * sizeof(float));
  EXPECT_EQ(source.out, pool.bytes_held());
}

TEST(MemoryPool, MakesRoomFromWhatItHoldsBeforeItFails) {
  CountingMemory source(1000);
  MemoryPool pool(source);
  pool.release(pool.allocate(600), 600);
  void* block = pool.allocate(800);
  pool.release(block, 800);
  EXPECT_THROW(pool.allocate(2000), DeviceError);
}

TEST(MemoryPool, HoldsNoMoreBytesThanItMay) {
  CountingMemory source;
  MemoryPool pool(source, 1000), none(source, 0);
  for (const size_t bytes : {600, 500, 300}) pool.release(pool.allocate(bytes), bytes);
  EXPECT_EQ(pool.bytes_held(), 900U) << "600 and 300";
  none.release(none.allocate(8), 8);
  EXPECT_EQ(none.bytes_held(), 0U);
}

TEST(LimitedMemory, RefusesWhatWouldExceedTheLimitAndSaysTheNumbers) {
  LimitedMemory memory(host_memory(), "cuda:3", 1000);
  void* block = memory.allocate(700);
  try {
    memory.allocate(400);
    FAIL() << "not refused";
  } catch (const DeviceError& error) {
    EXPECT_STREQ(error.what(), "cuda:3 is out of memory: 400 bytes asked for, 700 of 1000 bytes in use");
  }
  EXPECT_EQ(memory.bytes(), 700);
  memory.release(block, 700);
  EXPECT_EQ(memory.bytes(), 0);
  EXPECT_EQ(memory.peak_bytes(), 700);
}

TEST(LimitedMemory, AsksForWhatIsHeldElsewhereBeforeItRefuses) {
  LimitedMemory memory(host_memory(), "cpu", 1000);
  MemoryPool pool(memory);
  memory.on_shortage([&] { pool.trim(); });
  pool.release(pool.allocate(700), 700);
  EXPECT_EQ(memory.bytes(), 700) << "held";
  void* block = memory.allocate(900);
  EXPECT_EQ(pool.bytes_held(), 0U);
  memory.release(block, 900);
}

TEST(LimitedMemory, AFailingSourceIsAskedOnceMoreAndLeavesTheCountRight) {
  CountingMemory source(1000);
  LimitedMemory memory(source, "cpu", 0);
  int asked = 0;
  memory.on_shortage([&] { ++asked; });
  EXPECT_THROW(memory.allocate(2000), DeviceError);
  EXPECT_EQ(asked, 1);
  EXPECT_EQ(memory.bytes(), 0);
}

}  // namespace
}  // namespace gptq
