// Collects the report of a run, and passes on its progress.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/resources.h"
#include "data/calibration.h"
#include "gptq/gptq.h"
#include "plan/plan.h"
#include "quant/bit_choice.h"
#include "report/progress.h"
#include "report/run_observer.h"

namespace gptq {

class Collector final : public RunObserver {
 public:
  // Keeps references to both. The recipe may be completed during the run.
  Collector(const Job& job, const Listener& listener) : job_(job), progress_(listener) {}

  void planned(const Plan& plan);
  void opened(const std::string& devices);  // for people
  void calibrated(const Calibration& calibration, const std::vector<TokenSequence>& sequences);
  // The job's total multiply-adds, to which progress is relative.
  void expect(const Facts& facts, const Layout& layout, double multiply_adds);
  // A part of the output that an earlier run finished.
  void restored(const std::vector<LinearReport>& linears, int64_t dropped_rows);
  void remark(Level level, const std::string& text) { tell(level, text); }
  void chose(const std::vector<ProbedStep>& steps, const std::vector<int>& bits);
  // Packs and writes a linear; may update its entry of the report later, whose address is stable.
  using Store = std::function<void(const LinearSpec&, const Quantized&, Backend&, LinearReport& entry)>;
  void store_with(Store store) { store_ = std::move(store); }
  void checked(const Check& check);
  void note_devices(const std::map<std::string, std::unique_ptr<Backend>>& devices);
  // Called after commit, with the job's complete recipe.
  Report finish(const Facts& facts, const Layout& layout, int64_t spill_bytes, int64_t output_bytes);
  int64_t dropped_rows() const { return report_.dropped_rows; }
  const RunProgress& progress() const { return progress_; }

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
  void tell(Level level, const std::string& text);
  bool loads_weights() const;  // the current stage

  const Job& job_;
  Store store_;
  Report report_;
  RunProgress progress_;
  double cpu_at_start_ = cpu_seconds();
  const Layout* layout_ = nullptr;
  int64_t sequences_at_once_ = INT64_MAX;
  std::string damped_step_;               // the last one whose damping was reported
  Backend* backend_ = nullptr;            // the device of the last unit
  int64_t bytes_in_ = 0, bytes_out_ = 0;  // of the unit's weights: to the device, and back as codes
};

}  // namespace gptq
