#include "run/sweeps.h"

#include <algorithm>
#include <optional>

#include "model/work.h"

namespace gptq {
namespace {

// Passes copies of all batches through the block, and calls visit(step, copies) after they have entered each step.
template <typename Visit>
void pass_copies(BlockPass& pass, const Visit& visit) {
  pass.for_each(kOnlyLooks, [&](BatchPair pair) {
    const auto copied = [&](const Batch& from) {
      return Batch{.offsets = from.offsets, .residual = copy_of(pass.backend(), from.residual)};
    };
    Batch copy = copied(pair.batch), original_copy;
    if (pair.original != nullptr) original_copy = copied(*pair.original);
    const BatchPair copies{copy, pair.original != nullptr ? &original_copy : nullptr};
    for (int64_t s = 0; s < pass.steps(); ++s) {
      pass.enter(s, copies);
      visit(s, copies);
    }
  });
}

}  // namespace

void sweep_sequentially(BlockPass& pass, const StepSolver& solver, bool advances) {
  BlockObserver& observer = pass.observer();
  for (int64_t s = 0; s < pass.steps(); ++s) {
    observer.begin_step(pass.specs()[s]);
    std::optional<Hessian> hessian(solver.hessian_of(s));
    pass.for_each_at(s, [&](BatchPair pair) {
      pass.enter(s, pair);
      solver.add_inputs(s, pair, *hessian);
      observer.swept(pass.specs()[s], pair.batch.tokens());
    });
    pass.watch(s);
    const int64_t routed = hessian->tokens();
    if (solver.saw_few(s, *hessian)) {
      hessian.reset();
      hessian.emplace(solver.hessian_of(s));
      const StateUse looks{.reads_residual = false, .reads_input = true, .writes_residual = false};
      pass.for_each(looks, [&](BatchPair pair) { solver.add_all_inputs(s, pair, *hessian); });
    }
    pass.drop_before(s + 1);
    solver.selects(s) ? solver.solve(s, *hessian, routed) : pass.load(s);
  }
  pass.watch(pass.steps());
  if (!advances) return;
  pass.for_each_at(pass.steps(), [&](BatchPair pair) {
    pass.finish(pair);
    observer.swept({}, 0);
  });
}

void sweep_at_once(BlockPass& pass, const StepSolver& solver, bool advances) {
  BlockObserver& observer = pass.observer();
  for (int64_t s = 0; s < pass.steps(); ++s) pass.load(s);
  observer.begin_step(pass.specs()[0]);
  std::vector<Hessian> hessians;
  for (int64_t s = 0; s < pass.steps(); ++s) hessians.push_back(solver.hessian_of(s));
  pass_copies(pass, [&](int64_t s, BatchPair pair) {
    solver.add_inputs(s, pair, hessians[s]);
    observer.swept(pass.specs()[s], pair.batch.tokens());
  });
  std::vector<int64_t> routed;
  std::vector<bool> few;
  for (int64_t s = 0; s < pass.steps(); ++s) {
    routed.push_back(hessians[s].tokens());
    few.push_back(solver.saw_few(s, hessians[s]));
    if (few.back()) hessians[s].clear();
  }
  if (std::count(few.begin(), few.end(), true) > 0) {
    pass_copies(pass, [&](int64_t s, BatchPair pair) {
      if (few[s]) solver.add_all_inputs(s, pair, hessians[s]);
    });
  }
  for (int64_t s = 0; s < pass.steps(); ++s) {
    observer.begin_step(pass.specs()[s]);
    if (solver.selects(s)) solver.solve(s, hessians[s], routed[s]);
  }
  for (int64_t s = 0; s <= pass.steps(); ++s) pass.watch(s);
  if (!advances) return;
  const StateUse whole{.reads_residual = true, .reads_input = false, .writes_residual = true};
  pass.for_each(whole, [&](BatchPair pair) {
    pass.forward(pair);
    observer.swept({}, 0);
  });
}

void sweep_forward(BlockPass& pass) {
  for (int64_t s = 0; s < pass.steps(); ++s) {
    pass.observer().begin_step(pass.specs()[s]);
    pass.for_each_at(s, [&](BatchPair pair) {
      pass.enter(s, pair);
      pass.observer().worked(forward_work(pass.specs()[s], pair.batch.tokens()));
    });
    pass.watch(s);
    pass.drop_before(s + 1);
    pass.load(s);
  }
  pass.for_each_at(pass.steps(), [&](BatchPair pair) { pass.finish(pair); });
  pass.watch(pass.steps());
}

void sweep_rounding(BlockPass& pass, const StepSolver& solver) {
  for (int64_t s = 0; s < pass.steps(); ++s) {
    pass.observer().begin_step(pass.specs()[s]);
    pass.load(s);
    solver.round(s);
    pass.drop(s);
    pass.observer().solved_step(pass.specs()[s], 0);
  }
}

}  // namespace gptq
