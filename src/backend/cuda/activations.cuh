// Activations on the device, in f32.
#pragma once

#include "ops/gates.h"

namespace gptq::cuda {

__device__ inline float activated(Activation activation, float x) {
  switch (activation) {
    case Activation::silu:
      return x / (1 + expf(-x));
    case Activation::gelu:
      return 0.5F * x * erfcf(-x * 0.70710678118654752F);
    case Activation::gelu_tanh:  // (1 + tanh(u)) / 2 = 1 / (1 + exp(-2 u))
      return x / (1 + expf(-1.5957691216057308F * (x + 0.044715F * x * x * x)));
    case Activation::relu:
      return x < 0 ? 0 : x;  // NaN stays
    case Activation::relu_squared:
      return x < 0 ? 0 : x * x;
    case Activation::clamped_swiglu: {
      const float bounded = x > 7 ? 7 : x;
      return bounded / (1 + expf(-1.702F * bounded));
    }
    case Activation::quick_gelu:
      return x / (1 + expf(-1.702F * x));
    case Activation::sigmoid:
      return 1 / (1 + expf(-x));
    case Activation::softplus:
      return (x < 0 ? 0 : x) + log1pf(expf(-fabsf(x)));
    case Activation::identity:
      return x;
  }
  return 0;
}

}  // namespace gptq::cuda
