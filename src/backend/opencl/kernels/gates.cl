// Functions of single elements: a thread for each. Limited by memory bandwidth.

// `up` is 1 where there is none.
kernel void gate(MATRIX(from), MATRIX(up), int activation, MATRIX(y), long rows, long cols) {
  const long col = get_global_id(0), row = get_global_id(1);
  if (row >= rows || col >= cols) return;
  float factor = up_at.exists ? GET(up, row, col) : 1;
  if (activation == CLAMPED_SWIGLU) factor = bounded(factor, 7) + 1;
  SET(y, row, col, activated(activation, GET(from, row, col)) * factor);
}

kernel void cap(MATRIX(x), int is_soft, float bound, long rows, long cols) {
  const long col = get_global_id(0), row = get_global_id(1);
  if (row >= rows || col >= cols) return;
  const float value = GET(x, row, col);
  SET(x, row, col, is_soft ? bound * hyperbolic_tangent(value / bound) : bounded(value, bound));
}

kernel void xielu(MATRIX(x), MATRIX(alphas), MATRIX(y), long rows, long cols) {
  const long col = get_global_id(0), row = get_global_id(1);
  if (row >= rows || col >= cols) return;
  const float value = GET(x, row, col), alpha = softplus(GET(alphas, value > 0 ? 0 : 1, 0));
  const float curve =
      value > 0 ? alpha * value * value : (0.5f + alpha) * (expm1(value < -1e-6f ? value : -1e-6f) - value);
  SET(y, row, col, 0.5f * value + curve);
}
