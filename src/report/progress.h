// What a run is doing, for its listener: messages, progress and the time left; and for errors the place of the run.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/stopwatch.h"
#include "gptq/gptq.h"
#include "model/specs.h"
#include "plan/placement.h"

namespace gptq {

// Host seconds by stage.
class StageClock {
 public:
  void begin(const char* stage) {
    stage_ = stage;
    began_ = watch_.seconds();
  }
  void end() { seconds_[stage_] += watch_.seconds() - began_; }
  const std::string& stage() const { return stage_; }  // the current or last one
  double elapsed() const { return watch_.seconds(); }
  const std::map<std::string, double>& seconds() const { return seconds_; }

 private:
  Stopwatch watch_;
  std::string stage_;
  double began_ = 0;
  std::map<std::string, double> seconds_;
};

class RunProgress {
 public:
  // Keeps a reference.
  explicit RunProgress(const Listener& listener) : listener_(listener) {}

  void tell(Level level, const std::string& text) const;
  // The whole job, to which progress is relative: blocks, tokens of the calibration, multiply-adds.
  void expect(int64_t blocks, int64_t tokens, double multiply_adds);

  void begin_stage(const char* stage);
  void end_stage() { clock_.end(); }
  void begin_unit(const Placement::Unit& unit, int64_t block);  // block: -1 before the first one
  void end_unit() { unit_ = nullptr; }
  void begin_step(const std::vector<LinearSpec>& step);
  void solved(double loss) { last_loss_ = loss; }
  // Reports further completed multiply-adds to the listener.
  void worked(double multiply_adds);

  const StageClock& clock() const { return clock_; }
  const Placement::Unit* unit() const { return unit_; }  // the current one, or null
  int64_t block() const { return block_; }
  const std::string& step() const { return step_; }  // for people

  // Throws the current exception again; adds the place where it happened to a device's, and the remedy to OutOfMemory.
  [[noreturn]] void throw_located() const;

 private:
  std::string place() const { return unit_->module + ", step " + step_; }

  const Listener& listener_;
  StageClock clock_;
  double work_ = 0, work_done_ = 0;  // multiply-adds: of the whole job, and done so far
  double blocks_began_ = -1;         // seconds until the first block started
  int64_t blocks_ = 0, tokens_ = 0;
  const Placement::Unit* unit_ = nullptr;
  int64_t block_ = 0;
  std::string step_;
  double last_loss_ = 0;
};

}  // namespace gptq
