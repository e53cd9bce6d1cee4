// Measures of logits: a row is the work of a work-group. Limited by memory bandwidth.
#define THREADS 256

// facts[row, 0] = log(sum(exp(x))), facts[row, 1] = the first place of the maximum. Places are compared as floats, which
// hold them exactly below 2^24: no vocabulary is larger.   x [rows, n], facts [rows, 2] f32
kernel __attribute__((reqd_work_group_size(THREADS, 1, 1))) void describe_rows(MATRIX(x), MATRIX(facts), int n) {
  local float places[THREADS];
  const long row = get_group_id(0);
  float own_top = -INFINITY, own_place = INFINITY, sum = 0;
  for (int j = (int)get_local_id(0); j < n; j += THREADS) {
    const float value = GET(x, row, j);
    if (value > own_top || own_place == INFINITY) own_place = (float)j;
    own_top = fmax(own_top, value);
  }
  const float top = group_maximum(own_top, places);
  const float place = -group_maximum(own_top == top ? -own_place : -INFINITY, places);
  for (int j = (int)get_local_id(0); j < n; j += THREADS) sum += exp(GET(x, row, j) - top);
  sum = group_sum(sum, places);
  if (get_local_id(0) == 0) {
    SET(facts, row, 0, top + log(sum));
    SET(facts, row, 1, place);
  }
}

// A thread for each row.
kernel void token_losses(MATRIX(logits), MATRIX(facts), MATRIX(targets), MATRIX(losses), long rows) {
  const long row = get_global_id(0);
  if (row < rows) SET(losses, row, 0, GET(facts, row, 0) - GET(logits, row, INTS(targets)[row]));
}

kernel __attribute__((reqd_work_group_size(THREADS, 1, 1))) void compare_logits(MATRIX(p), MATRIX(q), MATRIX(of_p),
                                                                                MATRIX(of_q), MATRIX(divergence),
                                                                                MATRIX(same_top), int n) {
  local float places[THREADS];
  const long row = get_group_id(0);
  float sum = 0;
  for (int j = (int)get_local_id(0); j < n; j += THREADS) {
    const float log_p = GET(p, row, j) - GET(of_p, row, 0);
    sum += exp(log_p) * (log_p - (GET(q, row, j) - GET(of_q, row, 0)));
  }
  sum = group_sum(sum, places);
  if (get_local_id(0) == 0) {
    SET(divergence, row, 0, sum);
    SET(same_top, row, 0, GET(of_p, row, 1) == GET(of_q, row, 1) ? 1 : 0);
  }
}
