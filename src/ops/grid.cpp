#include "ops/grid.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "ops/elements.h"

namespace gptq::ops {
namespace {

struct ScaleAndZero {
  double scale = 0, zero = 0;
};

// A scale as fp16 holds it: the nearest one, neither zero nor infinite.
double stored_scale(double scale) {
  const double half = std::abs(static_cast<float>(Half(static_cast<float>(scale))));
  return std::copysign(std::clamp(half, 0x1p-24, 65504.0), scale);
}

// The grids that a search tries for a group whose smallest weight, or 0, is lo and whose largest, or 0, is hi.
std::vector<ScaleAndZero> candidates_of(double lo, double hi, const GridSearch& search) {
  const double top = (1 << search.bits) - 1, middle = (top + 1) / 2;
  if (lo == 0 && hi == 0) lo = -1, hi = 1;
  std::vector<ScaleAndZero> grids;
  for (int candidate = 0; candidate < search.candidates; ++candidate) {
    const double p = 1.0 - candidate * static_cast<double>(search.shrink_step);
    if (!search.symmetric) {
      const double scale = stored_scale(p * (hi - lo) / top), zero = std::nearbyint(-p * lo / scale);
      for (const int step : {0, -1, 1}) {
        if (step == 0 || search.search_zeros) grids.push_back({scale, std::clamp(zero + step, 0.0, top)});
      }
    } else if (search.signed_scales) {
      const double widest = (-lo >= hi ? -lo : -hi) / middle;
      grids.push_back({stored_scale(p * widest), middle});
      if (search.candidates > 1) grids.push_back({stored_scale(-1.05 * p * widest), middle});
    } else {
      grids.push_back({stored_scale(p * 2 * std::max(-lo, hi) / top), middle});
    }
  }
  return grids;
}

}  // namespace

void reference(const FindGrid& op) {
  for (int64_t row = 0; row < op.w.rows; ++row) {
    for (int64_t group = 0; group < op.scales.cols; ++group) {
      const std::vector<double> values = load_row(op.w.col_range(group * op.group_size, op.group_size), row);
      const double lo = std::min(0.0, *std::min_element(values.begin(), values.end()));
      const double hi = std::max(0.0, *std::max_element(values.begin(), values.end()));
      const std::vector<ScaleAndZero> grids = candidates_of(lo, hi, op.search);
      ScaleAndZero best = grids.front();
      double least = std::numeric_limits<double>::infinity();
      for (const ScaleAndZero& grid : grids) {
        double error = 0;
        for (int64_t k = 0; k < op.group_size; ++k) {
          const double code = code_of(values[k], grid.scale, grid.zero, op.search.bits);
          const double weight = op.importance.empty() ? 1 : load(op.importance, 0, group * op.group_size + k);
          error += weight * std::pow(std::abs(grid.scale * (code - grid.zero) - values[k]), op.search.norm);
        }
        if (!(error < least)) continue;
        least = error;
        best = grid;
      }
      store(op.scales, row, group, best.scale);
      store(op.zeros, row, group, best.zero);
    }
  }
}

void reference(const RoundColumns& op) {
  for (int64_t row = 0; row < op.w.rows; ++row) {
    for (int64_t k = 0; k < op.w.cols; ++k) {
      const double scale = load(op.grid.scales, row, op.groups[k]), zero = load(op.grid.zeros, row, op.groups[k]);
      store(op.codes, row, k, code_of(load(op.w, row, k), scale, zero, op.grid.bits));
    }
  }
}

void reference(const Dequantize& op) {
  for (int64_t row = 0; row < op.w.rows; ++row) {
    for (int64_t k = 0; k < op.w.cols; ++k) {
      const double scale = load(op.grid.scales, row, op.groups[k]), zero = load(op.grid.zeros, row, op.groups[k]);
      store(op.w, row, k, scale * (load(op.codes, row, k) - zero));
    }
  }
}

}  // namespace gptq::ops
