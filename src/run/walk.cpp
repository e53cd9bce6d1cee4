#include "run/walk.h"

#include <utility>

#include "base/error.h"

namespace gptq {

std::vector<Stop> blocks_between(int64_t first, int64_t last) {
  std::vector<Stop> stops;
  for (int64_t block = first; block < last; ++block)
    stops.push_back({.block = block, .ahead = block + 1 < last ? block + 1 : -1});
  return stops;
}

std::vector<Stop> every_block(int64_t blocks) { return blocks_between(0, blocks); }

std::vector<Stop> every_block_in_rounds(int64_t blocks) {
  std::vector<Stop> stops;
  for (int64_t block = 0; block < blocks; ++block)
    stops.push_back({.block = block, .ahead = blocks > 1 ? (block + 1) % blocks : -1});
  return stops;
}

void ObservedVisitor::visit(const Stop& stop, const Take& take, const Team& team) {
  as_unit(session_.placement().block(stop.block), stop.block, team.lead(),
          [&] { pass(in_stage(observer_, kReadStage, take), team); });
}

void ObservedVisitor::boundary(const Stop& stop, const Team& /*team*/, const std::vector<Trimmed>& trimmed) {
  observer_.trimmed(session_.placement().block(stop.block).module, trimmed);
}

// A module on the CPU visits its device alone: its block is freed before the next one is loaded, also on another
// device.
void Walk::over(const std::vector<Stop>& stops, Visitor& visitor) {
  for (const Stop& stop : stops) {
    check_stop(options_.stop);
    const Team team = session_.team(stop.block);
    visitor.visit(
        stop, [&] { return take(stop, visitor); }, team);
    visitor.boundary(stop, team, options_.trims ? session_.trim() : std::vector<Trimmed>());
    if (options_.at_boundary) options_.at_boundary(stop);
  }
}

StagedBlock Walk::take(const Stop& stop, const Visitor& visitor) {
  const bool is_ahead = next_.valid() && ahead_ == stop.block;
  StagedBlock staged = is_ahead ? next_.get() : session_.read(stop.block).get();
  next_ = {};
  if (options_.read_ahead && stop.ahead >= 0 && visitor.reads(stop.ahead)) {
    ahead_ = stop.ahead;
    next_ = session_.read(ahead_);
  }
  return staged;
}

}  // namespace gptq
