// What quantizing tells while it works: a run reports and writes by it, a rehearsal counts.
#pragma once

#include <vector>

#include "model/specs.h"
#include "quant/hessian.h"
#include "quant/solver.h"

namespace gptq {

// Names of stages that more than one file knows.
inline constexpr const char* kSetupStage = "setup";
inline constexpr const char* kPlanStage = "plan";
inline constexpr const char* kCalibrationStage = "calibration";  // its tokens and their embedding
inline constexpr const char* kEmbeddingStage = "embedding";      // the device's part of it
inline constexpr const char* kReadStage = "read";                // waiting for weights
inline constexpr const char* kLoadStage = "load";                // weights to the device
inline constexpr const char* kMovingStage = "moving states";     // that wait elsewhere
inline constexpr const char* kPackStage = "pack and write";
inline constexpr const char* kCommitStage = "commit";  // what is left after the last block: writing to the disk
inline constexpr const char* kProbeStage = "probes";
inline constexpr const char* kMeasureStage = "measuring bits";

// Functions are called on the thread that quantizes.
class BlockObserver {
 public:
  virtual ~BlockObserver() = default;
  // All until end_stage() is the work of this stage: "forward", "Hessian", ...; stages do not nest.
  virtual void begin_stage(const char* stage) = 0;
  virtual void end_stage() = 0;
  virtual void begin_step(const std::vector<LinearSpec>& step) = 0;
  // A batch has passed the step, or the step's linears are solved. May throw, to end the run.
  virtual void swept(const std::vector<LinearSpec>& step, int64_t tokens) = 0;
  virtual void solved_step(const std::vector<LinearSpec>& step, int64_t dropped_rows) = 0;
  // This many multiply-adds are done besides. May throw, to end the run.
  virtual void worked(double multiply_adds) = 0;
  // A linear has its codes; `hessian` is nullptr where rounding needs none.
  virtual void solved(const LinearSpec& linear, const Quantized& quantized, const FactoredHessian* hessian,
                      Backend& backend) = 0;
};

// One stage's work, told to the observer.
template <typename Body>
auto in_stage(BlockObserver& observer, const char* stage, Body body) {
  struct Scope {
    BlockObserver& observer;
    ~Scope() { observer.end_stage(); }
  };
  observer.begin_stage(stage);
  const Scope scope{observer};
  return body();
}

}  // namespace gptq
