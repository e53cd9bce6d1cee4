#include "data/jinja/memory.h"

#include "base/error.h"

namespace gptq::jinja {
namespace {

constexpr uint64_t kSteps = uint64_t{4} << 20, kStepsPerByte = 64;
constexpr uint64_t kBytes = uint64_t{64} << 20, kBytesPerByte = 64;

}  // namespace

Memory::Memory(size_t input_bytes)
    : input_bytes_(input_bytes),
      steps_(kSteps + kStepsPerByte * input_bytes),
      bytes_(kBytes + kBytesPerByte * input_bytes) {}

Text Memory::text(std::string bytes, bool markup) {
  read(bytes.size());
  grow(sizeof(std::string) + bytes.size());
  return {texts_.emplace_back(std::move(bytes)), markup};
}

List* Memory::list(std::vector<Value> items, List::Shape shape) {
  step(1 + items.size() / 8);
  grow(sizeof(List) + items.size() * sizeof(Value));
  return &lists_.emplace_back(List{std::move(items), shape});
}

Dict* Memory::dict() {
  grow(sizeof(Dict));
  return &dicts_.emplace_back();
}

Namespace* Memory::name_space() {
  grow(sizeof(Namespace));
  return &namespaces_.emplace_back();
}

Loop* Memory::loop() {
  grow(sizeof(Loop));
  return &loops_.emplace_back();
}

Callable* Memory::callable(std::string_view name, std::function<Value(Arguments&)> call) {
  grow(2 * sizeof(Callable));
  return &callables_.emplace_back(Callable{name, std::move(call)});
}

Scope* Memory::scope(Scope* parent) {
  grow(2 * sizeof(Scope));
  return &scopes_.emplace_back(Scope{parent, {}});
}

void Memory::refuse_steps() const {
  fail("it takes more than ", kSteps + kStepsPerByte * input_bytes_,
       " steps for one chat, where a real template takes some thousands");
}

void Memory::refuse_bytes() const {
  fail("it makes more than ", kBytes + kBytesPerByte * input_bytes_, " bytes of values from one chat of ", input_bytes_,
       " bytes, which no real template does");
}

void Memory::refuse_depth(Memory& memory) {
  --memory.depth_;
  fail("it is nested, or its macros call each other, deeper than ", kDeepest, " levels");
}

}  // namespace gptq::jinja
