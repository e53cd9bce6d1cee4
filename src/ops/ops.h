// All ops, and what generic code does with them: look at one whose type it does not know, and find facts by name.
#pragma once

#include <span>
#include <string_view>
#include <type_traits>

#include "ops/attention.h"
#include "ops/columns.h"
#include "ops/convolution.h"
#include "ops/copies.h"
#include "ops/delta_rule.h"
#include "ops/factor.h"
#include "ops/gates.h"
#include "ops/gram.h"
#include "ops/grid.h"
#include "ops/linear.h"
#include "ops/losses.h"
#include "ops/norms.h"
#include "ops/pack.h"
#include "ops/packed.h"
#include "ops/rope.h"
#include "ops/row_sums.h"
#include "ops/state_space.h"
#include "ops/sums.h"
#include "ops/symmetric.h"

namespace gptq {
namespace ops {

using AllOps = Concatenation<CopyOps, SumOps, NormOps, LinearOps, RopeOps, AttentionOps, GateOps, GramOps, SymmetricOps,
                             FactorOps, RowSumOps, GridOps, ColumnOps, PackOps, PackedOps, LossOps, ConvolutionOps,
                             DeltaRuleOps, StateSpaceOps>::List;

template <typename Op, typename... All>
constexpr int index_in(OpList<All...> /*all*/) {
  int index = 0;
  (void)((std::is_same_v<Op, All> || (++index, false)) || ...);
  return index;
}
// The place of an op among all of them.
template <typename Op>
constexpr int index_of() {
  constexpr int index = index_in<Op>(AllOps());
  static_assert(index < AllOps::kCount, "no op, or one that its header's list lacks");
  return index;
}

template <typename... Op, typename Visit>
void visit_in(OpList<Op...> /*all*/, int index, Visit&& visit) {
  using Call = void (*)(Visit&);
  static constexpr Call calls[] = {[](Visit& call) { call(std::type_identity<Op>()); }...};
  calls[index](visit);
}
// Calls visit(std::type_identity<Op>()) with the type of the op at `index`.
template <typename Visit>
void visit_type(int index, Visit&& visit) {
  visit_in(AllOps(), index, visit);
}

// Facts of an op that do not depend on operands.
struct OpFacts {
  const char* name;
  bool is_product;
  double (*work)(const OpSizes& sizes);
  OpSizes (*trial_sizes)(OpSizes sizes, const TrialLimits& limits);
};
// By index.
std::span<const OpFacts> all_facts();
// The index of the op called `name`, which must be one.
int index_of(std::string_view name);
inline const OpFacts& facts_of(std::string_view name) { return all_facts()[static_cast<size_t>(index_of(name))]; }

template <typename Op>
OpCall call_of(const Op& op) {
  return {Op::kName, op.sizes(), op.dtype()};
}

// An op of any type, and the place for its result. Refers to both.
class OpRef {
 public:
  template <typename Op>
  explicit OpRef(const Op& op, ResultOf<Op>* result = nullptr) : index_(index_of<Op>()), op_(&op), result_(result) {}

  int index() const { return index_; }
  const char* name() const { return all_facts()[static_cast<size_t>(index_)].name; }

  // Calls function(op), given the op's type, and keeps its result.
  template <typename Op, typename Function>
  void apply(Function&& function) const {
    const Op& op = *static_cast<const Op*>(op_);
    if constexpr (std::is_void_v<ResultOf<Op>>)
      function(op);
    else
      *static_cast<ResultOf<Op>*>(result_) = function(op);
  }
  // The same for whatever type it has.
  template <typename Function>
  void visit(Function&& function) const {
    visit_type(index_, [&](auto type) { apply<typename decltype(type)::type>(function); });
  }

 private:
  int index_;
  const void* op_;
  void* result_;
};

}  // namespace ops
}  // namespace gptq
