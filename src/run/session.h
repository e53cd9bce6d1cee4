// The resources of a run: its devices, the host memory that they share with staged weights, and the model. The devices
// of a rehearsal only count (run/counting_session.h).
#pragma once

#include <atomic>
#include <future>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/background.h"
#include "data/calibration.h"
#include "model/model.h"
#include "plan/plan.h"
#include "report/run_observer.h"
#include "run/states.h"
#include "run/team.h"

namespace gptq {

// Devices by name, opened on first use, with one host memory for all.
class Devices {
 public:
  // Limits accelerators to `resources`, and the host to its limit minus `process` if that is given.
  Devices(const Resources& resources, int threads, const ProcessMemory* process = nullptr);
  Backend& operator[](const std::string& name);
  const std::map<std::string, std::unique_ptr<Backend>>& opened() const { return backends_; }

 private:
  const Resources& resources_;
  const int threads_;
  LimitedMemory host_;
  std::map<std::string, std::unique_ptr<Backend>> backends_;
};

// Closed while weights are read from disk, so that other copying waits.
class ReadGate {
 public:
  void close() { closed_ = true; }
  void open() {
    closed_ = false;
    closed_.notify_all();
  }
  void wait() const { closed_.wait(true); }

 private:
  std::atomic<bool> closed_ = false;
};

// How a session keeps hidden states.
struct StateOptions {
  StatePlace place = StatePlace::device;
  bool keeps_inputs = true;
  StateBytes bytes;          // per token; for a spill file
  std::string spill_folder;  // folder of the spill file
};

class Session {
 public:
  explicit Session(const Placement& placement) : placement_(placement) {}
  virtual ~Session() = default;
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  const Placement& placement() const { return placement_; }
  virtual Backend& device(const std::string& name) = 0;
  Backend& first() { return device(placement_.embedding().computes_on); }
  Backend& head() { return device(placement_.head().computes_on); }
  Team team(int64_t block) { return {{&device(placement_.block(block).computes_on)}}; }
  virtual Model& model() = 0;

  // Starts reading a block's weights into host memory.
  virtual std::future<StagedBlock> read(int64_t block) = 0;
  // The states of these sequences, of equal length, before the first block, on first().
  virtual Batch embed(const std::vector<TokenSequence>& sequences, ThreadPool* pool = nullptr) = 0;
  // An empty store with room for `tokens` tokens.
  virtual std::unique_ptr<StateStore> make_store(int64_t tokens) = 0;
  // Makes the rope tables of all devices for sequences of up to `longest` tokens.
  virtual void prepare(int64_t longest) = 0;
  // Called before the output head computes.
  virtual void open_head() = 0;
  // Clears the caches of all devices.
  virtual std::vector<Trimmed> trim() = 0;
  // Clears the caches of staging memory, after the last block has been read.
  virtual void trim_staging() = 0;

 private:
  const Placement& placement_;
};

// A session on real devices. A background thread reads blocks.
class DeviceSession final : public Session {
 public:
  // References must outlive the session. reader: reads quantized weights, as in Model.
  DeviceSession(const Checkpoint& checkpoint, const Placement& placement, Devices& devices, DType dtype,
                WeightReader reader, StateOptions states, ModelUse use = ModelUse::batches);

  Backend& device(const std::string& name) override { return devices_[name]; }
  Model& model() override { return *model_; }
  std::future<StagedBlock> read(int64_t block) override;
  Batch embed(const std::vector<TokenSequence>& sequences, ThreadPool* pool) override;
  std::unique_ptr<StateStore> make_store(int64_t tokens) override;
  void prepare(int64_t longest) override;
  void open_head() override {}
  std::vector<Trimmed> trim() override;
  void trim_staging() override;

  ReadGate& gate() { return gate_; }
  // Frees the model; only trim() may follow.
  void close_model() { model_.reset(); }

 private:
  Devices& devices_;
  const StateOptions states_;
  std::unique_ptr<Model> model_;
  ReadGate gate_;
  BackgroundWorker reader_;  // last: uses the members above
};

}  // namespace gptq
