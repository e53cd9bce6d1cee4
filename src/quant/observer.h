// Observes quantizing: a run reports and writes through it, a rehearsal counts.
#pragma once

#include <vector>

#include "model/specs.h"
#include "quant/hessian.h"
#include "quant/solver.h"

namespace gptq {

// Names of stages used in several files.
inline constexpr const char* kSetupStage = "setup";
inline constexpr const char* kPlanStage = "plan";
inline constexpr const char* kCalibrationStage = "calibration";  // tokens and their embedding
inline constexpr const char* kEmbeddingStage = "embedding";      // the device's part of the calibration stage
inline constexpr const char* kReadStage = "read";                // waiting for weights
inline constexpr const char* kLoadStage = "load";                // loading weights to the device
inline constexpr const char* kMovingStage = "moving states";     // from and to other places of storage
inline constexpr const char* kPackStage = "pack and write";
inline constexpr const char* kCommitStage = "commit";  // remaining writes after the last block
inline constexpr const char* kCheckStage = "check";    // of the output, and the sequences that it passes
inline constexpr const char* kProbeStage = "probes";
inline constexpr const char* kMeasureStage = "measuring bits";

// Functions are called on the thread that quantizes.
class BlockObserver {
 public:
  virtual ~BlockObserver() = default;
  // All work until end_stage() belongs to this stage: "forward", "Hessian", ...; stages do not nest.
  virtual void begin_stage(const char* stage) = 0;
  virtual void end_stage() = 0;
  virtual void begin_step(const std::vector<LinearSpec>& step) = 0;
  // A batch has passed the step; the step's linears are solved. May throw to end the run.
  virtual void swept(const std::vector<LinearSpec>& step, int64_t tokens) = 0;
  virtual void solved_step(const std::vector<LinearSpec>& step, int64_t dropped_rows) = 0;
  // Reports further completed multiply-adds. May throw to end the run.
  virtual void worked(double multiply_adds) = 0;
  // A linear is solved; `hessian` is nullptr for rounding.
  virtual void solved(const LinearSpec& linear, const Quantized& quantized, const FactoredHessian* hessian,
                      Backend& backend) = 0;
};

// Runs `body` as a stage of the observer.
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
