// The walk over a model's blocks, the only one: read ahead, take, visit, trim, block by block. Quantizing, probing,
// evaluating, generating and rehearsing are visitors of it.
#pragma once

#include <functional>
#include <stop_token>
#include <utility>
#include <vector>

#include "run/session.h"

namespace gptq {

// A block on the way.
struct Stop {
  int64_t block = 0;
  int64_t ahead = -1;  // the block that is read while this one is visited; -1: none
  int64_t times = 1;   // how many blocks of its kind it stands for, in a rehearsal
};

// All blocks in their order.
std::vector<Stop> every_block(int64_t blocks);
// The same for a way that is gone again and again: the first block is read while the last one is visited.
std::vector<Stop> every_block_in_rounds(int64_t blocks);

class Visitor {
 public:
  virtual ~Visitor() = default;
  // Waits for the block's weights, and begins to read the next ones.
  using Take = std::function<StagedBlock()>;
  virtual void visit(const Stop& stop, const Take& take, const Team& team) = 0;
  // The block boundary: the block is done, the states are past it, caches are cleared, and nothing of it is left on a
  // device. What has been written of the output so far is whole.
  virtual void boundary(const Stop& stop, const Team& team, const std::vector<Trimmed>& trimmed) = 0;
  // False for a block that the visitor keeps: it is not read ahead.
  virtual bool reads(int64_t /*block*/) const { return true; }
};

// Called at each block boundary, after the visitor: where a journal, or a count, can go on.
using Boundary = std::function<void(const Stop& stop)>;

struct WalkOptions {
  bool read_ahead = true;
  bool trims = true;  // caches of all devices after each block
  Boundary at_boundary = {};
  std::stop_token stop = {};  // asked before each block; Cancelled is thrown
};

class Walk {
 public:
  Walk(Session& session, WalkOptions options) : session_(session), options_(std::move(options)) {}
  // Visits the stops in their order. Calls after each other go on with what is read ahead.
  void over(const std::vector<Stop>& stops, Visitor& visitor);

 private:
  StagedBlock take(const Stop& stop, const Visitor& visitor);

  Session& session_;
  const WalkOptions options_;
  int64_t ahead_ = -1;
  std::future<StagedBlock> next_;  // block `ahead_`, where it is valid
};

}  // namespace gptq
