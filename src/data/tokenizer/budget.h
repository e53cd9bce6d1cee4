// What one text may cost. A tokenizer.json is a program of others: regular expressions may take time that grows with
// the square of a text or faster, replacements may multiply it. Real ones stay far below these limits.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace gptq {

class Budget {
 public:
  // For a text of `bytes` bytes.
  explicit Budget(size_t bytes);

  // Counts steps; one stands for about 2 ns. Throws InputError that names the part if too many are taken.
  void spend(uint64_t steps, const char* part) {
    if (steps > steps_) refuse_steps(part);
    steps_ -= steps;
  }
  uint64_t steps_left() const { return steps_; }
  [[noreturn]] void refuse_steps(const std::string& part) const;

  // Counts bytes by which a part makes the text longer. Throws InputError that names it if there are too many.
  void grow(size_t bytes, const char* part) {
    if (bytes > growth_) refuse_growth(part);
    growth_ -= bytes;
  }
  void grow(size_t before, size_t after, const char* part) {
    if (after > before) grow(after - before, part);
  }

  // True once in a while: for measuring some of many calls.
  bool samples() { return ++calls_ % kSampled == 0; }
  static constexpr uint64_t kSampled = 61;  // of how many calls one is measured; prime, as calls come in patterns

 private:
  [[noreturn]] void refuse_growth(const std::string& part) const;

  size_t bytes_;
  uint64_t steps_, growth_;
  uint64_t calls_ = 0;
};

}  // namespace gptq
