// The output of a run: packs and writes linears while the next ones are solved, and copies unquantized tensors while no
// block is read.
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
  // Throws InputError if the output cannot be written. References must outlive it.
  Output(const Job& job, const Facts& facts, const Layout& layout, ReadGate& gate);
  ~Output();  // without commit(): removes everything written
  Output(const Output&) = delete;
  Output& operator=(const Output&) = delete;

  // Waits until the queue of linears to be written has room for another.
  void make_room();
  // Packs and writes a linear in the background, after calling `look` there.
  void write(const std::string& linear, std::shared_ptr<FetchedLinear> fetched,
             std::function<void(const FetchedLinear&)> look);
  // Starts copying unquantized tensors, and writes the configs. job: with its complete recipe.
  void carry_over(const Job& job);
  // Waits for all writes, and puts the output in place.
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
  std::atomic<bool> ended_ = false;  // the run has finished or failed
  std::deque<std::future<void>> writes_;
  std::future<void> carried_over_;
  BackgroundWorker packer_, carrier_;  // last: use the members above
};

}  // namespace gptq
