// What a run tells besides what quantizing a block tells: whose turn it is, and which caches were cleared.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "plan/placement.h"
#include "quant/observer.h"

namespace gptq {

// Bytes that a device held for reuse, before and after its cache was cleared.
struct Trimmed {
  std::string device;
  int64_t held_before = 0, held_after = 0;
};

class RunObserver : public BlockObserver {
 public:
  // All until end_unit() is the work of this unit on `backend`. block: its index; the last one's for the head.
  virtual void begin_unit(const Placement::Unit& unit, int64_t block, Backend& backend) = 0;
  // sequences_at_once: that pass a step together from now on; fewer than before where the device ran out of memory.
  virtual void end_unit(int64_t sequences_at_once) = 0;
  virtual void trimmed(const std::string& when, const std::vector<Trimmed>& devices) = 0;
};

}  // namespace gptq
