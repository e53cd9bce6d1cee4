#include "run/session.h"

#include <utility>

#include "backend/registry.h"
#include "tensor/page_memory.h"

namespace gptq {

Devices::Devices(const Resources& resources, int threads, const ProcessMemory* process)
    : resources_(resources),
      threads_(threads),
      host_(host_memory(), "cpu", process != nullptr ? budget_of(resources, *process, "cpu") : 0) {
  host_.on_shortage([this] {
    for (const auto& [name, backend] : backends_) backend->trim();
    for (const auto& [name, backend] : backends_) backend->trim_staging();
  });
}

Backend& Devices::operator[](const std::string& name) {
  std::unique_ptr<Backend>& backend = backends_[name];
  if (!backend) {
    BackendOptions options{.threads = threads_, .memory = &host_};
    if (name != "cpu") options.memory_bytes = resources_.limit_of(name);
    backend = open_backend(name, options);
  }
  return *backend;
}

DeviceSession::DeviceSession(const Checkpoint& checkpoint, const Placement& placement, Devices& devices, DType dtype,
                             WeightReader reader, StateOptions states, ModelUse use)
    : Session(placement), devices_(devices), states_(std::move(states)) {
  for (const std::string& name : placement.devices) devices_[name];
  model_ = std::make_unique<Model>(checkpoint, first(), dtype, std::move(reader), use);
  model_->output_head().compute_on(head());
}

std::future<StagedBlock> DeviceSession::read(int64_t block) {
  gate_.close();
  return reader_.submit([this, block] {
    struct Scope {
      ReadGate& gate;
      ~Scope() { gate.open(); }
    } scope{gate_};
    return model_->weights().stage_block(block, team(block).lead().staging_memory());
  });
}

Batch DeviceSession::embed(const std::vector<TokenSequence>& sequences, ThreadPool* pool) {
  return model_->embedding().embed(sequences, first(), pool);
}

std::unique_ptr<StateStore> DeviceSession::make_store(int64_t tokens) {
  Memory& host = first().staging_memory();
  auto store = states_.place == StatePlace::spill
                   ? std::make_unique<StateStore>(states_.spill_folder, tokens, states_.bytes.residual,
                                                  states_.bytes.input, host)
                   : std::make_unique<StateStore>(states_.place, host);
  if (!states_.keeps_inputs) store->drop_inputs();
  return store;
}

void DeviceSession::prepare(int64_t longest) {
  for (const std::string& name : placement().devices) model_->prepare(longest, devices_[name]);
}

std::vector<Trimmed> DeviceSession::trim() {
  std::vector<Trimmed> trimmed;
  for (const auto& [name, backend] : devices_.opened()) {
    const int64_t before = backend->memory_use().held;
    backend->trim();
    trimmed.push_back({name, before, backend->memory_use().held});
  }
  return trimmed;
}

void DeviceSession::trim_staging() {
  for (const auto& [name, backend] : devices_.opened()) backend->trim_staging();
}

}  // namespace gptq
