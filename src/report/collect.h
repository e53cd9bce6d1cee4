// Collects the report of a run and reports its progress.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/resources.h"
#include "base/stopwatch.h"
#include "data/calibration.h"
#include "gptq/gptq.h"
#include "plan/plan.h"
#include "quant/bit_choice.h"
#include "report/run_observer.h"

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

class Collector final : public RunObserver {
 public:
  // Keeps references to both. The recipe may be completed during the run.
  Collector(const Job& job, const Listener& listener) : job_(job), listener_(listener) {}

  void tell(Level level, const std::string& text);
  void planned(const Plan& plan);
  void opened(const std::string& devices);  // for people
  void calibrated(const Calibration& calibration, const std::vector<TokenSequence>& sequences);
  // The job's total multiply-adds, to which progress is relative.
  void expect(const Facts& facts, const Layout& layout, double multiply_adds);
  void chose(const std::vector<ProbedStep>& steps, const std::vector<int>& bits);
  // Packs and writes a linear; may update its entry of the report later, whose address is stable.
  using Store = std::function<void(const LinearSpec&, const Quantized&, Backend&, LinearReport& entry)>;
  void store_with(Store store) { store_ = std::move(store); }
  void note_devices(const std::map<std::string, std::unique_ptr<Backend>>& devices);
  // Called after commit, with the job's complete recipe.
  Report finish(const Facts& facts, const Layout& layout, int64_t spill_bytes, int64_t output_bytes);
  // Adds the place where it happened and the remedy to an error.
  OutOfMemory located(const OutOfMemory& error) const;
  DeviceError located(const DeviceError& error) const;

  void begin_stage(const char* stage) override;
  void end_stage() override;
  void begin_step(const std::vector<LinearSpec>& step) override;
  void swept(const std::vector<LinearSpec>& step, int64_t tokens) override;
  void solved_step(const std::vector<LinearSpec>& step, int64_t dropped_rows) override;
  void worked(double multiply_adds) override;
  void solved(const LinearSpec& linear, const Quantized& quantized, const FactoredHessian* hessian,
              Backend& backend) override;
  void begin_unit(const Placement::Unit& unit, int64_t block, Backend& backend) override;
  void end_unit(int64_t sequences_at_once) override;
  void trimmed(const std::string& when, const std::vector<Trimmed>& devices) override;

 private:
  std::string place() const;
  std::vector<std::pair<std::string, double>> stage_seconds() const;
  void tell_of_experts();

  const Job& job_;
  const Listener& listener_;
  Store store_;
  Report report_;
  StageClock clock_;
  double cpu_at_start_ = cpu_seconds();
  const Layout* layout_ = nullptr;
  double work_ = 0, work_done_ = 0;  // multiply-adds: of the whole job, and done so far
  double blocks_began_ = -1;         // seconds until the first block started
  int64_t blocks_ = 0, block_ = 0;
  int64_t sequences_at_once_ = INT64_MAX;
  const Placement::Unit* unit_ = nullptr;  // the current unit
  std::string step_, damped_step_;
  double last_loss_ = 0;
  Backend* backend_ = nullptr;            // the device of the last unit
  int64_t bytes_in_ = 0, bytes_out_ = 0;  // of the unit's weights: to the device, and back as codes
};

}  // namespace gptq
