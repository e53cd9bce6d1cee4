// Observes a run: in addition to BlockObserver, the current unit and cleared caches.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "plan/placement.h"
#include "quant/observer.h"

namespace gptq {

// Bytes cached by a device before and after its cache was cleared.
struct Trimmed {
  std::string device;
  int64_t held_before = 0, held_after = 0;
};

class RunObserver : public BlockObserver {
 public:
  // All work until end_unit() is for this unit on `backend`. block: its index; for the head, the last block's.
  virtual void begin_unit(const Placement::Unit& unit, int64_t block, Backend& backend) = 0;
  // sequences_at_once: those that pass a step together from now on; fewer after the device ran out of memory.
  virtual void end_unit(int64_t sequences_at_once) = 0;
  virtual void trimmed(const std::string& when, const std::vector<Trimmed>& devices) = 0;
};

}  // namespace gptq
