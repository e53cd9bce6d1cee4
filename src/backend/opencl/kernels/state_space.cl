// State-space models: a thread has a column of a state, in local memory, and takes it from token to token. Limited by
// the latency of one token after the other. Sums are in f32.

typedef struct {
  int head_dim, heads_per_group, state;
  float min_step, max_step;
} Shape;

// Mamba-2: work-group (p, h, s) has elements of head h in sequence s; its states are [state, threads].
kernel void state_space_dual(MATRIX(x), MATRIX(dt), MATRIX(b), MATRIX(c), MATRIX(dt_bias), MATRIX(a_log), MATRIX(d),
                             MATRIX(offsets), MATRIX(y), Shape s, local float *states, local float *of_token) {
  const int thread = (int)get_local_id(0), threads = (int)get_local_size(0);
  const int head = (int)get_group_id(1), element = (int)get_global_id(0), is_there = element < s.head_dim;
  const long end = LONGS(offsets)[get_group_id(2) + 1], column = (long)head * s.head_dim + element,
             group_column = (long)(head / s.heads_per_group) * s.state;
  const float rate = -exp(FLOATS(a_log)[head]), bias = FLOATS(dt_bias)[head], skip = FLOATS(d)[head];
  local float *of_b = of_token, *of_c = of_token + s.state;
  for (int n = 0; n < s.state; ++n) states[n * threads + thread] = 0;
  for (long row = LONGS(offsets)[get_group_id(2)]; row < end; ++row) {
    barrier(CLK_LOCAL_MEM_FENCE);
    for (int n = thread; n < s.state; n += threads) {
      of_b[n] = GET(b, row, group_column + n);
      of_c[n] = GET(c, row, group_column + n);
    }
    barrier(CLK_LOCAL_MEM_FENCE);
    const float step = fmin(fmax(softplus(GET(dt, row, head) + bias), s.min_step), s.max_step);
    const float decay = exp(rate * step), value = is_there ? GET(x, row, column) : 0, fed = step * value;
    float sum = skip * value;
    for (int n = 0; n < s.state; ++n) {
      const float next = fma(of_b[n], fed, decay * states[n * threads + thread]);
      states[n * threads + thread] = next;
      sum = fma(of_c[n], next, sum);
    }
    if (is_there) SET(y, row, column, sum);
  }
}

// Mamba: work-group (p, s) has channels in sequence s; states and their rates are [state, threads].
kernel void selective_scan(MATRIX(x), MATRIX(dt), MATRIX(b), MATRIX(c), MATRIX(a_log), MATRIX(d), MATRIX(offsets),
                           MATRIX(y), int channels, int state, local float *states, local float *rates,
                           local float *of_token) {
  const int thread = (int)get_local_id(0), threads = (int)get_local_size(0);
  const int channel = (int)get_global_id(0), is_there = channel < channels;
  const long end = LONGS(offsets)[get_group_id(1) + 1];
  const float skip = is_there ? FLOATS(d)[channel] : 0;
  local float *of_b = of_token, *of_c = of_token + state;
  for (int n = 0; n < state; ++n) {
    states[n * threads + thread] = 0;
    rates[n * threads + thread] = is_there ? -exp(GET(a_log, channel, n)) : 0;
  }
  for (long row = LONGS(offsets)[get_group_id(1)]; row < end; ++row) {
    barrier(CLK_LOCAL_MEM_FENCE);
    for (int n = thread; n < state; n += threads) {
      of_b[n] = GET(b, row, n);
      of_c[n] = GET(c, row, n);
    }
    barrier(CLK_LOCAL_MEM_FENCE);
    const float step = is_there ? softplus(GET(dt, row, channel)) : 0, value = is_there ? GET(x, row, channel) : 0;
    const float fed = step * value;
    float sum = skip * value;
    for (int n = 0; n < state; ++n) {
      const float next = fma(of_b[n], fed, exp(rates[n * threads + thread] * step) * states[n * threads + thread]);
      states[n * threads + thread] = next;
      sum = fma(of_c[n], next, sum);
    }
    if (is_there) SET(y, row, channel, sum);
  }
}
