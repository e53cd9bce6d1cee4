#include "run/output.h"

#include <algorithm>
#include <utility>

#include "tensor/nonfinite.h"

namespace gptq {

Output::Output(const Job& job, const Facts& facts, const Layout& layout, ReadGate& gate, const OutputFolder& folder)
    : facts_(facts),
      layout_(layout),
      gate_(gate),
      writer_(facts.format->open(folder.model(), layout.output, job.max_shard_bytes)) {}

Output::~Output() {
  ended_ = true;
  gate_.open();
}

void Output::wait_for_writes(size_t may_wait) {
  for (; writes_.size() > may_wait; writes_.pop_front()) writes_.front().get();
}

void Output::make_room() { wait_for_writes(writes_behind(facts_.placement) - 1); }

void Output::write(const std::string& linear, std::shared_ptr<FetchedLinear> fetched,
                   std::function<void(const FetchedLinear&)> look) {
  writes_.push_back(packer_->submit([this, linear, fetched = std::move(fetched), look = std::move(look)] {
    look(*fetched);
    write_failed_ = true;  // until it has not
    for (auto& digest :
         write_linear(*writer_, linear, facts_.format->encode(*fetched, layout_.quantized.at(linear).recipe)))
      written_.push_back(std::move(digest));
    write_failed_ = false;
  }));
}

void Output::after_writes(std::function<void(Digests)> note) {
  noted_ = packer_->submit([this, note = std::move(note)] {
    if (!write_failed_) note(std::exchange(written_, {}));
  });
}

bool Output::keep(const Digests& tensors) { return writer_->keep(tensors); }

// A later sync may succeed though data were lost in this one, so its failure is kept.
void Output::flush() {
  try {
    writer_->flush();
  } catch (...) {
    const std::lock_guard lock(flush_mutex_);
    flush_failure_ = std::current_exception();
    throw;
  }
}

// Splits a fused bias tensor into one bias per linear.
void Output::split_biases(const StoredTensor& tensor, const std::vector<std::string>& linears) {
  const Checkpoint& checkpoint = *facts_.checkpoint;
  const DType dtype = parse_safetensors_dtype(tensor.dtype).value_or(DType::f32);  // checked by the model
  Matrix all(host_memory(), dtype, tensor.shape[0], tensor.shape[1]);
  checkpoint.read(tensor, 0, all.bytes(), all.view().data);
  refuse_nonfinite(checkpoint, tensor, count_nonfinite(all));
  for (const std::string& name : linears) {
    const LinearSpec& spec = layout_.quantized.at(name).spec;
    Matrix bias(host_memory(), dtype, 1, spec.out_features);
    std::vector<int32_t> columns;
    for (int64_t i = 0; i < spec.out_features; ++i)
      columns.push_back(static_cast<int32_t>(spec.first + i * spec.stride));
    reference(ops::GatherColumns{.x = all.view().row_range(spec.matrix_index, 1), .ids = columns, .y = bias});
    writer_->write(name + ".bias", bias.view().data, bias.bytes());
  }
}

void Output::copy_tensors() {
  constexpr size_t kPiece = size_t{4} << 20;
  std::vector<std::byte> piece(kPiece);
  const Checkpoint& checkpoint = *facts_.checkpoint;
  for (const StoredTensor* tensor : checkpoint.tensors()) {
    if (layout_.replaced.count(tensor->name) != 0) continue;
    if (const auto biases = layout_.split_biases.find(tensor->name); biases != layout_.split_biases.end()) {
      split_biases(*tensor, biases->second);
      continue;
    }
    int64_t bad = 0;
    for (size_t first = 0; first < tensor->bytes; first += kPiece) {
      gate_.wait();
      const size_t bytes = std::min(kPiece, tensor->bytes - first);
      checkpoint.read(*tensor, first, bytes, piece.data());
      const DType dtype = parse_safetensors_dtype(tensor->dtype).value_or(DType::u8);
      bad += count_nonfinite({piece.data(), dtype, 1, static_cast<int64_t>(bytes / size_of(dtype))});
      writer_->write_part(tensor->name, first, piece.data(), bytes);
      if (ended_) return;
    }
    refuse_nonfinite(checkpoint, *tensor, bad);
  }
}

void Output::carry_over(const Job& job) {
  carried_over_ = carrier_.submit([this] { copy_tensors(); }).share();
  facts_.format->finish(*writer_, *facts_.checkpoint, output_record(job, facts_, layout_));
}

void Output::wait_for_copies() { carried_over_.get(); }

void Output::wait_for_linears() {
  wait_for_writes(0);
  if (noted_.valid()) noted_.get();
}

bool Output::flush_failed() {
  const std::lock_guard lock(flush_mutex_);
  return flush_failure_ != nullptr;
}

void Output::finish() {
  wait_for_linears();
  carried_over_.get();
  if (flush_failed()) std::rethrow_exception(flush_failure_);
  writer_->finish();
}

}  // namespace gptq
