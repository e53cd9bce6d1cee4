// What follows GPTQ's columns: coordinate descent over the codes, and the scales that fit them best.
#pragma once

#include "backend/backend.h"
#include "quant/solver.h"

namespace gptq {

// One sweep of coordinate descent (QuantEase, arXiv 2309.01885) over the codes, in natural order: each becomes the
// nearest to its best value with all others as they are, so tr((T - Q) Hd (T - Q)') never rises.
// T [rows, n] f32; H [n, n] f32 whole, the damped Hessian
void sweep_codes(Backend& backend, ConstMatrixView T, ConstMatrixView H, Quantized& quantized);

// The scales that make tr((T - Q) H (T - Q)') least for the codes as they are, rounded to fp16. A group whose codes all
// stand for zero keeps its scale; so does a row without a solution, and a group whose scale would turn negative where
// that is not allowed. Groups are neighbouring columns.
void refit_scales(Backend& backend, ConstMatrixView T, ConstMatrixView H, bool negative_allowed, Quantized& quantized);

}  // namespace gptq
