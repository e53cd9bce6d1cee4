#include "ops/ops.h"

#include <algorithm>
#include <cassert>

namespace gptq::ops {
namespace {

template <typename... Op>
constexpr std::array<OpFacts, sizeof...(Op)> facts_in(OpList<Op...> /*all*/) {
  return {OpFacts{Op::kName, is_product<Op>(), &work<Op>, &trial_sizes<Op>}...};
}

}  // namespace

std::span<const OpFacts> all_facts() {
  static constexpr auto facts = facts_in(AllOps());
  return facts;
}

int index_of(std::string_view name) {
  const auto all = all_facts();
  const auto found = std::find_if(all.begin(), all.end(), [&](const OpFacts& facts) { return name == facts.name; });
  assert(found != all.end());
  return static_cast<int>(found - all.begin());
}

}  // namespace gptq::ops
