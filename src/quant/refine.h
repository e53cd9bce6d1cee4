// Stages after GPTQ's columns: coordinate descent over the codes, and refitting the scales.
#pragma once

#include "backend/backend.h"
#include "quant/quantized.h"

namespace gptq {

// One sweep of coordinate descent (QuantEase, arXiv 2309.01885) over the codes, in natural order: each code is set to
// the best value with all others fixed, rounded, so tr((T - Q) Hd (T - Q)') never increases. T [rows, n] f32; H [n, n]
// f32, both triangles of the damped Hessian
void sweep_codes(Backend& backend, ConstMatrixView T, ConstMatrixView H, Quantized& quantized);

// The scales that minimize tr((T - Q) H (T - Q)') for fixed codes, rounded to fp16. Unchanged are the scales of a group
// whose codes are all zero, of a row without a solution, and of a group whose scale would become negative if that is
// not allowed. Groups are neighbouring columns.
void refit_scales(Backend& backend, ConstMatrixView T, ConstMatrixView H, bool negative_allowed, Quantized& quantized);

}  // namespace gptq
