// The only loop over a model's blocks: reads ahead, hands each block to a visitor, and trims caches. Quantizing,
// probing, evaluating, generating and rehearsing are visitors.
#pragma once

#include <functional>
#include <stop_token>
#include <utility>
#include <vector>

#include "run/session.h"

namespace gptq {

// One step of a walk: the visit of a block.
struct Stop {
  int64_t block = 0;
  int64_t ahead = -1;  // the block to read during this visit; -1: none
  int64_t times = 1;   // in a rehearsal: the number of blocks that it represents
};

// Blocks [first, last) in order, and all of them.
std::vector<Stop> blocks_between(int64_t first, int64_t last);
std::vector<Stop> every_block(int64_t blocks);
// The same for repeated walks: the first block is read while the last one is visited.
std::vector<Stop> every_block_in_rounds(int64_t blocks);

class Visitor {
 public:
  virtual ~Visitor() = default;
  // Waits for the block's weights and starts reading the next ones.
  using Take = std::function<StagedBlock()>;
  virtual void visit(const Stop& stop, const Take& take, const Team& team) = 0;
  // The block boundary: all states are past the block, caches are cleared, and no device has weights of the block. All
  // output written so far is complete.
  virtual void boundary(const Stop& stop, const Team& team, const std::vector<Trimmed>& trimmed) = 0;
  // False for a block that the visitor keeps; it is not read ahead.
  virtual bool reads(int64_t /*block*/) const { return true; }
};

// A visitor that tells an observer whose turn it is, and which caches are cleared.
class ObservedVisitor : public Visitor {
 protected:
  // Both must outlive it.
  ObservedVisitor(Session& session, RunObserver& observer) : session_(session), observer_(observer) {}

  // Visits a block whose weights are there, in the observer's unit of the block.
  virtual void pass(StagedBlock staged, const Team& team) = 0;
  // Runs the body as the turn of a unit; block: as RunObserver::begin_unit() has it.
  template <typename Body>
  void as_unit(const Placement::Unit& unit, int64_t block, Backend& backend, const Body& body) {
    observer_.begin_unit(unit, block, backend);
    body();
    observer_.end_unit(session_.model().sequences_at_once());
  }

  Session& session_;
  RunObserver& observer_;

 private:
  void visit(const Stop& stop, const Take& take, const Team& team) final;
  void boundary(const Stop& stop, const Team& team, const std::vector<Trimmed>& trimmed) final;
};

// Called at each block boundary after the visitor, for example by a journal or a counter.
using Boundary = std::function<void(const Stop& stop)>;

struct WalkOptions {
  bool read_ahead = true;
  bool trims = true;  // clears the caches of all devices after each block
  Boundary at_boundary = {};
  std::stop_token stop = {};  // asked before each block; Cancelled is thrown
};

class Walk {
 public:
  Walk(Session& session, WalkOptions options) : session_(session), options_(std::move(options)) {}
  // Visits the stops in order. A block read ahead by one call is used by the next.
  void over(const std::vector<Stop>& stops, Visitor& visitor);

 private:
  StagedBlock take(const Stop& stop, const Visitor& visitor);

  Session& session_;
  const WalkOptions options_;
  int64_t ahead_ = -1;
  std::future<StagedBlock> next_;  // block ahead_, if valid
};

}  // namespace gptq
