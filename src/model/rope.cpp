// Rotary position embeddings in all kinds that transformers' Llama knows (modeling_rope_utils.py). Frequencies and
// angles are f32, as there, because at thousands of positions the rounding of a frequency shows in the cosine.
#include <algorithm>
#include <cmath>

#include "model/architecture.h"

namespace gptq {
namespace {

using Frequencies = std::vector<float>;

// 1 / base^(2i / dim)
Frequencies inverse_powers(double base, int64_t dim) {
  Frequencies result;
  for (int64_t i = 0; i < dim; i += 2) {
    const float exponent = static_cast<float>(i) / static_cast<float>(dim);
    result.push_back(1.0F / std::pow(static_cast<float>(base), exponent));
  }
  return result;
}

// Llama 3.1: long wavelengths are stretched, short ones kept, those between blended.
Frequencies llama3(const Rope& rope) {
  const auto positions = static_cast<double>(rope.original_positions);
  Frequencies result = inverse_powers(rope.theta, rope.rotary_dim);
  for (float& frequency : result) {
    const double wavelength = 2 * M_PI / frequency;
    if (wavelength > positions / rope.low_freq_factor) {
      frequency = static_cast<float>(frequency / rope.factor);
    } else if (wavelength >= positions / rope.high_freq_factor) {
      const double smooth =
          (positions / wavelength - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor);
      frequency = static_cast<float>((1 - smooth) * frequency / rope.factor + smooth * frequency);
    }
  }
  return result;
}

// YaRN (arXiv 2309.00071): a ramp over the dimensions between keeping and stretching.
Frequencies yarn(const Rope& rope) {
  const auto dim = static_cast<double>(rope.rotary_dim);
  const auto correction_dim = [&](double rotations) {
    return dim * std::log(static_cast<double>(rope.original_positions) / (rotations * 2 * M_PI)) /
           (2 * std::log(rope.theta));
  };
  double low = correction_dim(rope.beta_fast), high = correction_dim(rope.beta_slow);
  if (rope.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, dim - 1);
  if (low == high) high += 0.001;
  Frequencies result = inverse_powers(rope.theta, rope.rotary_dim);
  for (size_t i = 0; i < result.size(); ++i) {
    const auto stretched = static_cast<float>(std::clamp((static_cast<double>(i) - low) / (high - low), 0.0, 1.0));
    result[i] = result[i] / static_cast<float>(rope.factor) * stretched + result[i] * (1 - stretched);
  }
  return result;
}

Frequencies frequencies(const Rope& rope, int64_t length) {
  const int64_t dim = rope.rotary_dim;
  switch (rope.kind) {
    case RopeKind::standard:
      return inverse_powers(rope.theta, dim);
    case RopeKind::linear: {
      Frequencies result = inverse_powers(rope.theta, dim);
      for (float& frequency : result) frequency /= static_cast<float>(rope.factor);
      return result;
    }
    case RopeKind::dynamic: {  // the base grows with the sequence beyond the model's positions
      const auto positions = static_cast<double>(rope.max_positions),
                 seen = std::max(static_cast<double>(length), positions);
      const double growth = rope.factor * seen / positions - (rope.factor - 1);
      return inverse_powers(rope.theta * std::pow(growth, static_cast<double>(dim) / static_cast<double>(dim - 2)),
                            dim);
    }
    case RopeKind::yarn:
      return yarn(rope);
    case RopeKind::llama3:
      return llama3(rope);
    case RopeKind::longrope: {
      const std::vector<double>& factors = length > rope.original_positions ? rope.long_factor : rope.short_factor;
      Frequencies result = inverse_powers(rope.theta, dim);
      for (size_t i = 0; i < result.size(); ++i) result[i] /= static_cast<float>(factors[i]);
      return result;
    }
  }
  return {};
}

// What cos and sin are multiplied by.
double attention_scaling(const Rope& rope) {
  if (rope.kind != RopeKind::yarn && rope.kind != RopeKind::longrope) return 1;
  if (rope.attention_factor > 0) return rope.attention_factor;
  if (rope.factor <= 1) return 1;
  if (rope.kind == RopeKind::longrope)
    return std::sqrt(1 + std::log(rope.factor) / std::log(static_cast<double>(rope.original_positions)));
  const auto scale = [&](double mscale) { return 0.1 * mscale * std::log(rope.factor) + 1; };
  return rope.mscale != 0 && rope.mscale_all_dim != 0 ? scale(rope.mscale) / scale(rope.mscale_all_dim) : scale(1);
}

}  // namespace

bool depends_on_length(const Rope& rope) { return rope.kind == RopeKind::dynamic || rope.kind == RopeKind::longrope; }

RopeTable rope_table(const Rope& rope, int64_t length) {
  const Frequencies frequency = frequencies(rope, length);
  const auto scaling = static_cast<float>(attention_scaling(rope));
  RopeTable table{.positions = length, .half_dim = static_cast<int64_t>(frequency.size())};
  table.cos.reserve(static_cast<size_t>(length) * frequency.size());
  table.sin.reserve(static_cast<size_t>(length) * frequency.size());
  for (int64_t position = 0; position < length; ++position) {
    for (const float f : frequency) {
      const float angle = static_cast<float>(position) * f;
      table.cos.push_back(std::cos(angle) * scaling);
      table.sin.push_back(std::sin(angle) * scaling);
    }
  }
  return table;
}

}  // namespace gptq
