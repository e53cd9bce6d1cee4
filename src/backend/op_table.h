// The ops that a backend computes itself: functions, found by the op's index.
#pragma once

#include <array>

#include "ops/ops.h"

namespace gptq {

template <typename Device>
class OpTable {
 public:
  // Bytes that a call takes for itself while it runs.
  using Scratch = int64_t (*)(const Device& device, const OpCall& call);

  // `function` computes an op: Result (*)(Device&, const Op&).
  template <auto function>
  void add(Scratch scratch = nullptr) {
    add_as<function>(function, scratch);
  }

  bool has(const ops::OpRef& op) const { return entries_[static_cast<size_t>(op.index())].run != nullptr; }
  // Computes the op, or returns false where there is no function for it.
  bool run(Device& device, const ops::OpRef& op) const {
    const Run run = entries_[static_cast<size_t>(op.index())].run;
    if (run == nullptr) return false;
    run(device, op);
    return true;
  }

  int64_t scratch_bytes(const Device& device, const OpCall& call) const {
    const Scratch scratch = entries_[static_cast<size_t>(ops::index_of(call.op))].scratch;
    return scratch == nullptr ? 0 : scratch(device, call);
  }

 private:
  using Run = void (*)(Device&, const ops::OpRef&);
  struct Entry {
    Run run = nullptr;
    Scratch scratch = nullptr;
  };

  template <auto function, typename Op>
  void add_as(ops::ResultOf<Op> (* /*function*/)(Device&, const Op&), Scratch scratch) {
    entries_[ops::index_of<Op>()] = {[](Device& device, const ops::OpRef& op) {
                                       op.apply<Op>([&](const Op& typed) { return function(device, typed); });
                                     },
                                     scratch};
  }

  std::array<Entry, ops::AllOps::kCount> entries_;
};

}  // namespace gptq
