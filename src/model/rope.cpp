// Rotary position embeddings, all kinds of transformers' Llama (modeling_rope_utils.py). Frequencies and angles are f32
// and rounded in the same order as there: at thousands of positions the last bit of a frequency affects the cosine.
#include <algorithm>
#include <cmath>

#include "model/architecture.h"

namespace gptq {
namespace {

using Frequencies = std::vector<float>;

float single(double value) { return static_cast<float>(value); }
float single(int64_t value) { return static_cast<float>(value); }

// base^(2i / dim), the wavelengths in units of 2 pi positions
Frequencies powers(float base, int64_t dim) {
  Frequencies result;
  for (int64_t i = 0; i < dim; i += 2) result.push_back(std::pow(base, single(i) / single(dim)));
  return result;
}

Frequencies inverse_powers(float base, int64_t dim) {
  Frequencies result = powers(base, dim);
  for (float& value : result) value = 1 / value;
  return result;
}

Frequencies linear(const Rope& rope) {
  Frequencies result = inverse_powers(single(rope.theta), rope.rotary_dim);
  for (float& frequency : result) frequency /= single(rope.factor);
  return result;
}

// The base grows with sequences longer than the model's positions.
Frequencies dynamic(const Rope& rope, int64_t length) {
  float base = single(rope.theta);
  if (length > rope.max_positions) {
    const float growth = single(rope.factor) * single(length) / single(rope.max_positions) - single(rope.factor - 1);
    base *= std::pow(growth, single(static_cast<double>(rope.rotary_dim) / static_cast<double>(rope.rotary_dim - 2)));
  }
  return inverse_powers(base, rope.rotary_dim);
}

// Llama 3.1: scales long wavelengths, keeps short ones and interpolates in between.
Frequencies llama3(const Rope& rope) {
  const auto positions = static_cast<double>(rope.original_positions);
  const float longest = single(positions / rope.low_freq_factor), shortest = single(positions / rope.high_freq_factor);
  const float factor = single(rope.factor), low = single(rope.low_freq_factor);
  Frequencies result = inverse_powers(single(rope.theta), rope.rotary_dim);
  for (float& frequency : result) {
    const float wavelength = 1 / frequency * single(2 * M_PI);
    if (wavelength > longest) {
      frequency /= factor;
    } else if (wavelength >= shortest) {
      const float kept =
          (1 / wavelength * single(positions) - low) / single(rope.high_freq_factor - rope.low_freq_factor);
      frequency = (1 - kept) * frequency / factor + kept * frequency;
    }
  }
  return result;
}

// YaRN (arXiv 2309.00071): a linear ramp over the dimensions from kept to interpolated frequencies.
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
  Frequencies result = powers(single(rope.theta), rope.rotary_dim);
  for (size_t i = 0; i < result.size(); ++i) {
    const float ramp = std::clamp((static_cast<float>(i) - single(low)) / single(high - low), 0.0F, 1.0F);
    const float kept = 1 - ramp, interpolated = 1 / (single(rope.factor) * result[i]);
    result[i] = interpolated * (1 - kept) + 1 / result[i] * kept;
  }
  return result;
}

// Each frequency has its own divisor, from one list for short sequences or another for long ones.
Frequencies longrope(const Rope& rope, int64_t length) {
  const std::vector<double>& factors = length > rope.original_positions ? rope.long_factor : rope.short_factor;
  Frequencies result = powers(single(rope.theta), rope.rotary_dim);
  for (size_t i = 0; i < result.size(); ++i) result[i] = 1 / (single(factors[i]) * result[i]);
  return result;
}

// The frequencies of the whole head, of which only the first turn.
Frequencies proportional(const Rope& rope) {
  Frequencies result = inverse_powers(single(rope.theta), rope.rotary_dim);
  const auto turning = static_cast<size_t>(rope.rotated * static_cast<double>(rope.rotary_dim) / 2);
  for (size_t i = 0; i < result.size(); ++i) result[i] = i < turning ? result[i] / single(rope.factor) : 0.0F;
  return result;
}

Frequencies frequencies(const Rope& rope, int64_t length) {
  switch (rope.kind) {
    case RopeKind::standard:
      return inverse_powers(single(rope.theta), rope.rotary_dim);
    case RopeKind::linear:
      return linear(rope);
    case RopeKind::dynamic:
      return dynamic(rope, length);
    case RopeKind::yarn:
      return yarn(rope);
    case RopeKind::llama3:
      return llama3(rope);
    case RopeKind::longrope:
      return longrope(rope, length);
    case RopeKind::proportional:
      return proportional(rope);
    case RopeKind::temperature:
      break;
  }
  return {};
}

// The factor of cos and sin.
double attention_scaling(const Rope& rope, int64_t length) {
  if (rope.kind != RopeKind::yarn && rope.kind != RopeKind::longrope) return 1;
  if (rope.long_attention_factor > 0 && length > rope.original_positions) return rope.long_attention_factor;
  if (rope.attention_factor > 0) return rope.attention_factor;
  if (rope.factor <= 1) return 1;
  if (rope.kind == RopeKind::longrope)
    return std::sqrt(1 + std::log(rope.factor) / std::log(static_cast<double>(rope.original_positions)));
  const auto scale = [&](double mscale) { return 0.1 * mscale * std::log(rope.factor) + 1; };
  return rope.mscale != 0 && rope.mscale_all_dim != 0 ? scale(rope.mscale) / scale(rope.mscale_all_dim) : scale(1);
}

}  // namespace

bool depends_on_length(const Rope& rope) { return rope.kind == RopeKind::dynamic || rope.kind == RopeKind::longrope; }

bool depends_on_length(const ModelConfig& config) {
  return std::any_of(config.ropes.begin(), config.ropes.end(),
                     [](const Rope& rope) { return depends_on_length(rope); });
}

bool differ_by_length(const Rope& rope, int64_t a, int64_t b) {
  if (!depends_on_length(rope) || a == b) return false;
  return frequencies(rope, a) != frequencies(rope, b) || attention_scaling(rope, a) != attention_scaling(rope, b);
}

bool is_finite(const Rope& rope) {
  if (rope.kind == RopeKind::temperature)
    return std::isfinite(single((INT32_MAX + rope.temperature_first) / rope.temperature_positions));
  const RopeTable first = rope_table(rope, 1);  // 0 times an infinite frequency is NaN
  const auto finite = [](float value) { return std::isfinite(value); };
  bool all = std::isfinite(single(rope.theta)) && std::all_of(first.cos.begin(), first.cos.end(), finite);
  for (const int64_t length : {int64_t{1}, int64_t{INT32_MAX}}) {
    const Frequencies found = frequencies(rope, length);
    all = all && std::all_of(found.begin(), found.end(), finite) && finite(single(attention_scaling(rope, length)));
  }
  return all;
}

RopeTable rope_table(const Rope& rope, int64_t length) {
  if (rope.kind == RopeKind::temperature) {
    const auto half = static_cast<size_t>(rope.rotary_dim / 2);
    RopeTable table{.positions = length, .half_dim = rope.rotary_dim / 2};
    for (int64_t position = 0; position < length; ++position) {
      const float step =
          std::floor(single((static_cast<double>(position) + rope.temperature_first) / rope.temperature_positions));
      table.cos.insert(table.cos.end(), half, std::log1p(step) * single(rope.temperature) + 1);
      table.sin.insert(table.sin.end(), half, 0.0F);
    }
    return table;
  }
  const Frequencies frequency = frequencies(rope, length);
  const auto scaling = single(attention_scaling(rope, length)), direction = rope.reversed ? -scaling : scaling;
  RopeTable table{.positions = length, .half_dim = static_cast<int64_t>(frequency.size())};
  table.cos.reserve(static_cast<size_t>(length) * frequency.size());
  table.sin.reserve(static_cast<size_t>(length) * frequency.size());
  for (int64_t position = 0; position < length; ++position) {
    for (const float f : frequency) {
      const float angle = single(position) * f;
      table.cos.push_back(std::cos(angle) * scaling);
      table.sin.push_back(std::sin(angle) * direction);
    }
  }
  return table;
}

}  // namespace gptq
