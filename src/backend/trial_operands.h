// Operands of trials, in the memory of a device.
#pragma once

#include <cstdint>
#include <deque>
#include <span>
#include <vector>

#include "backend/backend.h"

namespace gptq {

class DeviceOperands final : public ops::TrialOperands {
 public:
  explicit DeviceOperands(Backend& backend) : backend_(backend) {}

  MatrixView random(DType dtype, int64_t rows, int64_t cols) override;
  MatrixView filled(float value, int64_t rows, int64_t cols) override;
  MatrixView zeros(DType dtype, int64_t rows, int64_t cols) override;
  MatrixView undefined(DType dtype, int64_t rows, int64_t cols) override;
  MatrixView identities(int64_t rows, int64_t n) override;
  DType residual_dtype(DType computed) const override { return backend_.residual_dtype(computed); }
  std::span<const int32_t> ids(int64_t count, int32_t value) override;
  std::span<const int32_t> counted(int64_t count) override { return count_to(count); }
  std::span<const int32_t> shuffled(int64_t count) override;
  std::span<const float> weights(int64_t count, float value) override;
  std::span<const int64_t> sequence(int64_t tokens) override;

 private:
  std::vector<int32_t>& count_to(int64_t count);

  Backend& backend_;
  std::deque<Matrix> matrices_;
  std::deque<std::vector<int32_t>> ids_;
  std::deque<std::vector<float>> weights_;
  std::deque<std::vector<int64_t>> offsets_;
};

}  // namespace gptq
