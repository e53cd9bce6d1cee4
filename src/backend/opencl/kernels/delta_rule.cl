// The gated delta rule. Limited by the latency of one token after the other.

kernel void log_decay(MATRIX(x), MATRIX(log_rate), MATRIX(bias), MATRIX(y), long rows, long cols) {
  const long col = get_global_id(0), row = get_global_id(1);
  if (row < rows && col < cols)
    SET(y, row, col, -exp(GET(log_rate, 0, col)) * softplus(GET(x, row, col) + GET(bias, 0, col)));
}

typedef struct {
  int heads_per_key, key_dim, value_dim;
} Shape;

// Work-group (p, h, s) takes head h of sequence s from token to token; a thread has a column of the state, in local
// memory: [key_dim, threads]. Sums are in f32.
kernel void gated_delta_rule(MATRIX(q), MATRIX(k), MATRIX(v), MATRIX(log_decay), MATRIX(beta), MATRIX(offsets),
                             MATRIX(y), Shape s, local float *state, local float *of_token) {
  const int thread = (int)get_local_id(0), threads = (int)get_local_size(0);
  const int head = (int)get_group_id(1), column = (int)get_global_id(0), is_there = column < s.value_dim;
  const long end = LONGS(offsets)[get_group_id(2) + 1], value_column = (long)head * s.value_dim + column,
             key_column = (long)(head / s.heads_per_key) * s.key_dim;
  local float *keys = of_token, *queries = of_token + s.key_dim;
  for (int i = 0; i < s.key_dim; ++i) state[i * threads + thread] = 0;
  for (long row = LONGS(offsets)[get_group_id(2)]; row < end; ++row) {
    barrier(CLK_LOCAL_MEM_FENCE);
    for (int i = thread; i < s.key_dim; i += threads) {
      keys[i] = GET(k, row, key_column + i);
      queries[i] = GET(q, row, key_column + i);
    }
    barrier(CLK_LOCAL_MEM_FENCE);
    const float decay = exp(FLOATS(log_decay)[row * log_decay_at.stride + head]);
    const float value = is_there ? GET(v, row, value_column) : 0;
    float known = 0, sum = 0;
    for (int i = 0; i < s.key_dim; ++i) {
      const float kept = state[i * threads + thread] * decay;
      state[i * threads + thread] = kept;
      known = fma(keys[i], kept, known);
    }
    const float update = FLOATS(beta)[row * beta_at.stride + head] * (value - known);
    for (int i = 0; i < s.key_dim; ++i) {
      const float next = fma(keys[i], update, state[i * threads + thread]);
      state[i * threads + thread] = next;
      sum = fma(queries[i], next, sum);
    }
    if (is_there) SET(y, row, value_column, sum);
  }
}
