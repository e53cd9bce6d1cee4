// Stores the hidden states of all calibration sequences between steps: on the computing device, in host memory, or in a
// spill file.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <future>
#include <optional>
#include <vector>

#include "backend/backend.h"
#include "base/background.h"
#include "io/file.h"
#include "model/batch.h"
#include "plan/strategy.h"

namespace gptq {

// A visit that reads residuals and changes nothing.
inline constexpr StateUse kOnlyLooks{.reads_residual = true, .reads_input = false, .writes_residual = false};

class StateStore {
 public:
  // On a device or in host memory.
  explicit StateStore(StatePlace place, Memory& host = host_memory()) : place_(place), host_(&host) {}
  // In an unnamed file in `spill_folder`, which the system removes in any case. It has room for `tokens` tokens in all,
  // with residuals and inputs of at most `residual_bytes` and `input_bytes` per token, and reserves it now: throws
  // InputError, naming --spill-dir, if the folder is missing, not writable or full.
  StateStore(const std::filesystem::path& spill_folder, int64_t tokens, int64_t residual_bytes, int64_t input_bytes,
             Memory& host = host_memory());

  // Whether the inputs of steps are kept; if not, they are rebuilt from the residuals, and a visit leaves none.
  bool keeps_inputs() const { return keeps_inputs_; }
  void drop_inputs() { keeps_inputs_ = false; }

  // Adds a batch whose residual is on `backend` and which has no input yet.
  void add(Batch batch, Backend& backend);

  // Calls visit(batch) for each batch in the order of add(), with its states on `backend`. `use` tells which states the
  // visit reads and writes; its input is always kept. Spilled batches are read ahead and written back in the
  // background.
  void for_each(Backend& backend, StateUse use, const std::function<void(Batch& batch)>& visit);

  // The same for one batch; reads the next one ahead.
  void visit(int64_t index, Backend& backend, StateUse use, const std::function<void(Batch& batch)>& visit);

  // Batch `index` moved to `backend`; for states that stay on devices.
  Batch& at(int64_t index, Backend& backend);

  int64_t batches() const { return static_cast<int64_t>(batches_.size()); }
  int64_t residual_bytes() const;                       // of all batches
  int64_t bytes_moved() const { return bytes_moved_; }  // so far, between devices, host and file
  int64_t spill_bytes() const { return spill_bytes_; }  // size of the spill file

 private:
  // A matrix in host memory or in the file; its shape is known in either case.
  struct Waiting {
    DType dtype = DType::f32;
    int64_t rows = 0, cols = 0;
    Matrix host;
    size_t bytes() const { return static_cast<size_t>(rows * cols) * size_of(dtype); }
  };
  struct Stored {
    Batch batch;                 // has its matrices while they are on a device
    Backend* backend = nullptr;  // that device
    Waiting residual, input;     // otherwise
    int64_t first_token = 0;     // tokens before it, which give its offset in the file
    std::future<void> read;      // pending read for the next visit
  };

  void visit_elsewhere(Stored& stored, Backend& backend, StateUse use, const std::function<void(Batch&)>& visit);
  void read_ahead(Stored& stored, StateUse use);
  Matrix to_backend(Waiting& waiting, Backend& backend);
  Waiting to_host(Matrix matrix, Backend& backend);
  void move(Stored& stored, Backend& to);
  void write_behind(Waiting& waiting, size_t offset);
  size_t residual_offset(const Stored& stored) const {
    return static_cast<size_t>(stored.first_token * residual_bytes_);
  }
  size_t input_offset(const Stored& stored) const {
    return static_cast<size_t>(tokens_ * residual_bytes_ + stored.first_token * input_bytes_);
  }

  StatePlace place_;
  bool keeps_inputs_ = true;
  Memory* host_;
  std::vector<Stored> batches_;
  int64_t bytes_moved_ = 0, first_free_ = 0;

  std::filesystem::path spill_folder_;
  int64_t tokens_ = 0, residual_bytes_ = 0, input_bytes_ = 0, spill_bytes_ = 0;
  Descriptor file_;
  std::future<void> written_;               // the last write
  std::optional<BackgroundWorker> worker_;  // last: uses the members above
};

}  // namespace gptq
