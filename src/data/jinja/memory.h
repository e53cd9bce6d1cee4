// What one rendering may use, and the owner of its values. A template is a program of others: it may loop without end
// or double a text again and again. Real ones stay far below the limits.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "data/jinja/value.h"

namespace gptq::jinja {

// The variables of a part of a template; those of the parts around it are seen too.
struct Scope {
  Scope* parent = nullptr;
  std::vector<std::pair<std::string_view, Value>> variables;
};

class Memory {
 public:
  // For messages of `input_bytes` bytes. Nothing is freed before the end, so the limit on what is made is one on what
  // is held too.
  explicit Memory(size_t input_bytes);

  // Counts steps; one stands for about 100 ns. Throws InputError if too many are taken.
  void step(uint64_t steps = 1) {
    if (steps > steps_) refuse_steps();
    steps_ -= steps;
  }
  // Counts the steps of reading or copying a text.
  void read(size_t bytes) { step(1 + bytes / 64); }
  // Counts bytes that are made. Throws InputError if there are too many.
  void grow(size_t bytes) {
    if (bytes > bytes_) refuse_bytes();
    bytes_ -= bytes;
  }
  // Throws InputError if a text of that many bytes could not be kept; counts nothing.
  void require(size_t bytes) const {
    if (bytes > bytes_) refuse_bytes();
  }

  // Holds one level of the interpreter's recursion. Throws InputError if there are too many.
  class Level {
   public:
    explicit Level(Memory& memory) : memory_(memory) {
      if (++memory_.depth_ > kDeepest) refuse_depth(memory_);
    }
    ~Level() { --memory_.depth_; }
    Level(const Level&) = delete;
    Level& operator=(const Level&) = delete;

   private:
    Memory& memory_;
  };

  Text text(std::string bytes, bool markup = false);
  List* list(std::vector<Value> items, List::Shape shape = List::Shape::kList);
  Dict* dict();
  Namespace* name_space();
  Loop* loop();
  Callable* callable(std::string_view name, std::function<Value(Arguments&)> call);
  Scope* scope(Scope* parent);

 private:
  [[noreturn]] static void refuse_depth(Memory& memory);
  [[noreturn]] void refuse_steps() const;
  [[noreturn]] void refuse_bytes() const;

  static constexpr int kDeepest = 1000;
  size_t input_bytes_;
  uint64_t steps_, bytes_;
  int depth_ = 0;
  std::deque<std::string> texts_;
  std::deque<List> lists_;
  std::deque<Dict> dicts_;
  std::deque<Namespace> namespaces_;
  std::deque<Loop> loops_;
  std::deque<Callable> callables_;
  std::deque<Scope> scopes_;
};

}  // namespace gptq::jinja
