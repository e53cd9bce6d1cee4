// The output of a run: linears are packed and written while the next ones are solved, and what is not quantized is
// copied while no block is read.
#pragma once

#include <atomic>
#include <deque>
#include <functional>
#include <future>
#include <memory>
#include <string>

#include "base/background.h"
#include "format/format.h"
#include "plan/layout.h"
#include "run/session.h"

namespace gptq {

class Output {
 public:
  // Throws InputError for an output that cannot be written. All references must outlive it.
  Output(const Job& job, const Facts& facts, const Layout& layout, ReadGate& gate);
  ~Output();  // without commit(): removes everything that was written
  Output(const Output&) = delete;
  Output& operator=(const Output&) = delete;

  // Waits until another linear may wait to be written.
  void make_room();
  // Packs and writes a linear in the background; calls `look` there first.
  void write(const std::string& linear, std::shared_ptr<FetchedLinear> fetched,
             std::function<void(const FetchedLinear&)> look);
  // Begins to copy what is not quantized, and writes the configs. job: with its recipe complete.
  void carry_over(const Job& job);
  // Waits for all that is written, and makes it the output.
  void commit();
  int64_t bytes() const { return static_cast<int64_t>(writer_->output_bytes()); }

 private:
  void wait_for_writes(size_t may_wait);
  void copy_tensors();
  void split_biases(const StoredTensor& tensor, const std::vector<std::string>& linears);

  const Facts& facts_;
  const Layout& layout_;
  ReadGate& gate_;
  std::unique_ptr<ModelSink> writer_;
  std::atomic<bool> ended_ = false;  // the run is over, or has failed
  std::deque<std::future<void>> writes_;
  std::future<void> carried_over_;
  BackgroundWorker packer_, carrier_;  // last: they use all of the above
};

}  // namespace gptq
