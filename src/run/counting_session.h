// A session whose devices only count: the same run allocates the same memory and calls the same ops, but reads and
// computes nothing.
#pragma once

#include <map>
#include <memory>
#include <string>

#include "backend/counting.h"
#include "plan/rehearsal.h"
#include "run/session.h"
#include "run/walk.h"

namespace gptq {

class CountingSession final : public Session {
 public:
  CountingSession(const Facts& facts, const RehearsalOptions& options);

  Backend& device(const std::string& name) override { return counting(name); }
  Model& model() override { return *model_; }
  // Allocates the block in host memory at once.
  std::future<StagedBlock> read(int64_t block) override;
  Batch embed(const std::vector<TokenSequence>& sequences, ThreadPool* pool) override;
  std::unique_ptr<StateStore> make_store(int64_t tokens) override;
  void prepare(int64_t longest) override;
  void open_head() override { model_->output_head().set_blank(); }
  std::vector<Trimmed> trim() override;
  void trim_staging() override {}

  Memory& host() { return host_; }
  // Allocates the buffers that a walk over such batches needs: for transfers of spilled states, and for the f32 copies
  // of a simulated accelerator's CPU.
  void take_buffers(int64_t batch_tokens, bool two_streams);
  // One block of each kind per device suffices: the first one.
  std::vector<Stop> one_of_each_kind() const;

  // Adds the calls since the last time, multiplied by `times`.
  void add_calls(int64_t times, Rehearsal& result);
  void drop_calls();
  // Frees the model and records the peak of each memory.
  void note_peaks(Rehearsal& result);

 private:
  struct Device {
    std::unique_ptr<LimitedMemory> memory;
    std::unique_ptr<CountingBackend> backend;
    Matrix workspace;
  };
  CountingBackend& counting(const std::string& name) { return *devices_.at(name).backend; }
  int64_t limit_of(const std::string& device) const;

  const Facts& facts_;
  const RehearsalOptions options_;
  NoMemory nothing_;
  LimitedMemory host_;
  bool widens_ = false;  // an accelerator that the host simulates sums in f32
  std::map<std::string, Device> devices_;
  std::unique_ptr<Model> model_;
  Matrix in_flight_, widened_;
};

}  // namespace gptq
