// The output of a run: packs and writes linears while the next ones are solved, and copies unquantized tensors while no
// block is read.
#pragma once

#include <atomic>
#include <deque>
#include <exception>
#include <functional>
#include <future>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "base/background.h"
#include "format/format.h"
#include "io/output_folder.h"
#include "plan/layout.h"
#include "run/session.h"

namespace gptq {

class Output {
 public:
  // Opens the model in `folder`. Throws InputError if it cannot be written. References must outlive it.
  Output(const Job& job, const Facts& facts, const Layout& layout, ReadGate& gate, const OutputFolder& folder);
  ~Output();
  Output(const Output&) = delete;
  Output& operator=(const Output&) = delete;

  // Waits until the queue of linears to be written has room for another.
  void make_room();
  // Packs and writes a linear in the background, after calling `look` there.
  void write(const std::string& linear, std::shared_ptr<FetchedLinear> fetched,
             std::function<void(const FetchedLinear&)> look);
  // Calls `note` in the background, once all linears so far are written, with the digests of those since the last call.
  void after_writes(std::function<void(Digests)> note);
  // Keeps tensors that an earlier run wrote; false if one of them is not as it was.
  bool keep(const Digests& tensors);
  // Syncs what is written. Any thread may call it.
  void flush();
  // Starts copying unquantized tensors, and writes the configs. job: with its complete recipe.
  void carry_over(const Job& job);
  // Waits for the last note.
  void settle() const {
    if (noted_.valid()) noted_.wait();
  }
  // Drops what is not written yet; for a run that failed.
  void stop_writing() { packer_.reset(); }
  // Waits until the unquantized tensors are copied.
  void wait_for_copies();
  // Waits until all linears are written, and after_writes() has called its last `note`.
  void wait_for_linears();
  // Whether a flush() has failed, which finish() then throws.
  bool flush_failed();
  // Waits for all writes, and syncs the whole model; no flush() may come later.
  void finish();
  int64_t bytes() const { return static_cast<int64_t>(writer_->output_bytes()); }

 private:
  void wait_for_writes(size_t may_wait);
  void copy_tensors();
  void split_biases(const StoredTensor& tensor, const std::vector<std::string>& linears);

  const Facts& facts_;
  const Layout& layout_;
  ReadGate& gate_;
  std::unique_ptr<ModelSink> writer_;
  std::atomic<bool> ended_ = false;  // the run has finished or failed
  Digests written_;                  // since after_writes(); of the packer's thread
  bool write_failed_ = false;        // likewise
  std::mutex flush_mutex_;
  std::exception_ptr flush_failure_;
  std::deque<std::future<void>> writes_;
  std::future<void> noted_;  // the last after_writes()
  std::shared_future<void> carried_over_;
  std::optional<BackgroundWorker> packer_{std::in_place};  // use the members above
  BackgroundWorker carrier_;                               // likewise
};

}  // namespace gptq
