// A plain or quantized folder, opened to run: rounds of batches pass all blocks. Blocks are loaded one at a time, the
// next one read ahead. If there are several rounds, blocks that fit are kept: on their device, or in host memory if the
// map assigns them to the CPU. Blocks on disk are read from the checkpoint every time.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "gptq/gptq.h"
#include "run/walk.h"

namespace gptq {

class OpenModel final : private Visitor {
 public:
  // References must outlive it. Throws InputError for an invalid folder, map or precision, and for a model without an
  // output head. Of `options` it takes the device map, the precision, the keys to ignore and the stop token.
  OpenModel(const std::string& folder, const Evaluation& options, const Resources& resources, Devices& devices,
            std::vector<Notice>& notices, ModelUse use = ModelUse::batches);

  const Checkpoint& checkpoint() const { return checkpoint_; }
  Model& model() { return session_->model(); }
  int64_t blocks() { return model().config().blocks; }
  Backend& head() { return session_->head(); }

  // The states of these batches after all blocks. keep: more rounds follow. Calls at_boundary() after each block.
  std::unique_ptr<StateStore> forward(const std::vector<std::vector<TokenSequence>>& batches, bool keep,
                                      const Boundary& at_boundary = {});
  // The same for the next tokens of a sequence, which `cache` then has too.
  std::unique_ptr<StateStore> forward(const TokenSequence& tokens, Cache& cache);

 private:
  void pass(StateStore& states, bool keep, const Boundary& at_boundary);
  void visit(const Stop& stop, const Take& take, const Team& team) override;
  void boundary(const Stop& stop, const Team& /*team*/, const std::vector<Trimmed>& /*trimmed*/) override {
    if (at_boundary_) at_boundary_(stop);
  }
  bool reads(int64_t block) const override { return staying_.count(block) == 0 && on_host_.count(block) == 0; }
  bool has_room(const std::string& device, int64_t bytes);

  Checkpoint checkpoint_;
  const Resources& resources_;
  Placement placement_;
  std::optional<DeviceSession> session_;
  std::optional<Walk> walk_;
  std::map<int64_t, Block> staying_;
  std::map<int64_t, StagedBlock> on_host_;
  std::map<std::string, int64_t> staying_bytes_;
  StateStore* states_ = nullptr;  // of the current round
  bool keep_ = false;
  Boundary at_boundary_;
};

}  // namespace gptq
