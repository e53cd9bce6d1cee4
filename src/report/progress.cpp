#include "report/progress.h"

#include <algorithm>

#include "base/resources.h"
#include "quant/observer.h"

namespace gptq {
namespace {

std::string short_names(const std::vector<LinearSpec>& linears) {
  std::string names;
  if (linears[0].expert >= 0) names = cat("expert ", linears[0].expert, " ");
  for (const LinearSpec& linear : linears)
    names += (names.empty() || names.back() == ' ' ? "" : ",") + linear.name.substr(linear.name.rfind('.') + 1);
  return names;
}

}  // namespace

void RunProgress::tell(Level level, const std::string& text) const {
  if (listener_.on_message) listener_.on_message(level, text);
}

void RunProgress::expect(int64_t blocks, int64_t tokens, double multiply_adds) {
  blocks_ = blocks;
  tokens_ = tokens;
  work_ = multiply_adds;
}

void RunProgress::begin_stage(const char* stage) {
  clock_.begin(stage);
  const bool checks_output = clock_.stage() == kCheckStage && unit_ == nullptr;
  if (checks_output || clock_.stage() == kReadStage || clock_.stage() == kEmbeddingStage ||
      clock_.stage() == kMeasureStage)
    step_ = stage;
}

void RunProgress::begin_unit(const Placement::Unit& unit, int64_t block) {
  if (blocks_began_ < 0 && block >= 0) blocks_began_ = clock_.elapsed();
  unit_ = &unit;
  block_ = std::max<int64_t>(block, 0);
}

void RunProgress::begin_step(const std::vector<LinearSpec>& step) { step_ = short_names(step); }

void RunProgress::worked(double multiply_adds) {
  work_done_ += multiply_adds;
  if (!listener_.on_progress || multiply_adds == 0) return;
  Progress progress{.text = step_, .block = block_, .blocks = blocks_, .loss = last_loss_};
  progress.fraction = std::min(1.0, work_done_ / work_);
  progress.seconds = clock_.elapsed();
  const double working = progress.seconds - blocks_began_;
  progress.remaining_seconds = progress.fraction > 0 ? working * (1 / progress.fraction - 1) : 0;
  progress.tokens_per_second =
      working > 0 ? progress.fraction * static_cast<double>(tokens_ * progress.blocks) / working : 0;
  progress.memory_bytes = resident_bytes();
  listener_.on_progress(progress);
}

void RunProgress::throw_located() const {
  try {
    throw;
  } catch (const OutOfMemory& error) {
    if (unit_ == nullptr) throw;
    throw OutOfMemory(cat(place(), ": ", error.what(),
                          "; give it more with `max_memory`, or take fewer `samples` or a smaller `batch_size`"));
  } catch (const DeviceError& error) {
    if (unit_ == nullptr) throw;
    throw DeviceError(cat(place(), ", ", clock_.stage(), ": ", error.what()));
  }
}

}  // namespace gptq
