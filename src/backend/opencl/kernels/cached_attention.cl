// Attention of a few queries to the keys of a whole sequence. A work-group has one query of one head: its threads share
// the keys out for the scores, then the columns for the sum of values. Limited by reading keys and values.
#define THREADS 64

typedef struct {
  int head_dim, heads_per_kv, window, chunk;  // 0: no bound
  float scale, soft_cap;
} Shape;

kernel __attribute__((reqd_work_group_size(THREADS, 1, 1))) void cached_attention(
    MATRIX(q), MATRIX(k), MATRIX(v), MATRIX(slopes), MATRIX(sinks), MATRIX(scores), MATRIX(y), Shape s, long earlier) {
  local float places[THREADS];
  const int thread = (int)get_local_id(0), head = (int)get_group_id(0), row = (int)get_group_id(1);
  const int query = (int)earlier + row, column = head * s.head_dim, kv_column = head / s.heads_per_kv * s.head_dim;
  int first = s.window > 0 ? max(query - s.window + 1, 0) : 0;
  if (s.chunk > 0) first = max(first, query / s.chunk * s.chunk);
  global float *own = FLOATS(scores) + ((long)row * get_num_groups(0) + head) * scores_at.stride;

  float top = sinks_at.exists ? FLOATS(sinks)[head] : -INFINITY;
  for (int key = first + thread; key <= query; key += THREADS) {
    float score = 0;
    for (int d = 0; d < s.head_dim; ++d) score = fma(GET(q, row, column + d), GET(k, key, kv_column + d), score);
    score *= s.scale;
    if (s.soft_cap > 0) score = s.soft_cap * hyperbolic_tangent(score / s.soft_cap);
    if (slopes_at.exists) score += FLOATS(slopes)[head] * (float)(key - query);
    own[key] = score;
    top = fmax(top, score);
  }
  top = group_maximum(top, places);
  float total = 0;
  for (int key = first + thread; key <= query; key += THREADS) {
    own[key] = exp(own[key] - top);
    total += own[key];
  }
  total = group_sum(total, places);
  if (sinks_at.exists) total += exp(FLOATS(sinks)[head] - top);  // it has no value
  barrier(CLK_GLOBAL_MEM_FENCE);
  for (int d = thread; d < s.head_dim; d += THREADS) {
    float sum = 0;
    for (int key = first; key <= query; ++key) sum = fma(own[key], GET(v, key, kv_column + d), sum);
    SET(y, row, column + d, sum / total);
  }
}
