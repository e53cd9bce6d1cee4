// Causal attention without a score matrix in memory: the softmax is computed while the keys stream by
// (FlashAttention-2, arXiv 2307.08691).
//
// A work-group of 8 x 8 threads has 32 queries of a head of a sequence and SLICE elements of their results: a wider head
// has several work-groups, each of which computes the scores. Keys pass 64 at a time. A thread has 4 queries x 8 keys of
// the scores, then 4 queries x SLICE / 8 elements of the results. Limited by arithmetic.
#pragma OPENCL FP_CONTRACT ON
#define QUERIES 32
#define KEYS 64
#define DEPTH 16  // elements of queries and keys, or values, that are in local memory at once
#define SIDE 8
#define THREADS 64
#define OWN 4                  // queries of a thread
#define PARTS (SLICE / SIDE / 8)  // pieces of 8 elements that a thread has of each result

typedef struct {
  int head_dim, heads_per_kv, window, chunk;  // 0: no bound
  float scale, soft_cap;
} Shape;

// The first key that a query sees.
int first_seen(Shape s, int query) {
  int first = s.window > 0 ? max(query - s.window + 1, 0) : 0;
  return s.chunk > 0 ? max(first, query / s.chunk * s.chunk) : first;
}

// piece[t, i] = x[first + i, column + t] for i below `width` rows of a piece, zeros where either ends.
void load_turned(local float *piece, int width, global const char *x, Place x_at, long first, int rows, int column,
                 int cols, int thread) {
  for (int e = thread; e < width * DEPTH; e += THREADS) {
    const int i = e / DEPTH, t = e % DEPTH;
    piece[t * width + i] = i < rows && t < cols ? GET(x, first + i, column + t) : 0;
  }
}

kernel FEW_LANES __attribute__((reqd_work_group_size(SIDE, SIDE, 1))) void attention(MATRIX(q), MATRIX(k), MATRIX(v),
                                                                           MATRIX(offsets), MATRIX(slopes),
                                                                           MATRIX(sinks), MATRIX(y), Shape s,
                                                                           int slices) {
  local float queries[DEPTH * QUERIES], keys[DEPTH * KEYS], values[DEPTH * SLICE], shares[QUERIES * KEYS];
  local float tops[QUERIES], totals[QUERIES], shrinks[QUERIES];
  const int x = (int)get_local_id(0), z = (int)get_local_id(1), thread = z * SIDE + x;
  const int head = (int)get_group_id(1), slice = (int)(get_group_id(0) % slices) * SLICE;
  const int tile = (int)(get_group_id(0) / slices), sequence = (int)get_group_id(2);
  const long start = LONGS(offsets)[sequence];
  const int length = (int)(LONGS(offsets)[sequence + 1] - start), first_query = tile * QUERIES;
  const int own_rows = min(length - first_query, QUERIES);  // not above 0 where the sequence is shorter
  const int q_column = head * s.head_dim, kv_column = head / s.heads_per_kv * s.head_dim;
  const int cols = min(s.head_dim - slice, SLICE);
  const float slope = slopes_at.exists ? FLOATS(slopes)[head] : 0;

  float8 results[OWN * PARTS];
  for (int i = 0; i < OWN * PARTS; ++i) results[i] = 0;
  if (thread < QUERIES) {
    tops[thread] = -INFINITY;
    totals[thread] = 0;
  }
  const int begin = first_seen(s, first_query) / KEYS * KEYS, end = own_rows > 0 ? first_query + own_rows : 0;
  for (int key = begin; key < end; key += KEYS) {
    float8 scores[OWN];
    for (int i = 0; i < OWN; ++i) scores[i] = 0;
    for (int d = 0; d < s.head_dim; d += DEPTH) {
      barrier(CLK_LOCAL_MEM_FENCE);
      load_turned(queries, QUERIES, q, q_at, start + first_query, own_rows, q_column + d, s.head_dim - d, thread);
      load_turned(keys, KEYS, k, k_at, start + key, length - key, kv_column + d, s.head_dim - d, thread);
      barrier(CLK_LOCAL_MEM_FENCE);
      for (int t = 0; t < DEPTH; ++t) {
        const float4 of_q = vload4(z, queries + t * QUERIES);
        const float8 of_k = vload8(x, keys + t * KEYS);
        scores[0] += of_q.s0 * of_k;
        scores[1] += of_q.s1 * of_k;
        scores[2] += of_q.s2 * of_k;
        scores[3] += of_q.s3 * of_k;
      }
    }
    for (int i = 0; i < OWN; ++i) {
      const int query = first_query + z * OWN + i, seen = first_seen(s, query);
      float parts[8];
      vstore8(scores[i] * s.scale, 0, parts);
      for (int j = 0; j < 8; ++j) {
        const int at = key + x * 8 + j;
        float score = parts[j];
        if (s.soft_cap > 0) score = s.soft_cap * hyperbolic_tangent(score / s.soft_cap);
        if (slopes_at.exists) score += slope * (float)(at - query);
        shares[(z * OWN + i) * KEYS + x * 8 + j] = at > query || at < seen ? -INFINITY : score;
      }
    }
    barrier(CLK_LOCAL_MEM_FENCE);
    // A thread has a query. Its scores become shares of the softmax so far.
    if (thread < QUERIES) {
      local float *row = shares + thread * KEYS;
      float top = tops[thread], sum = 0;
      for (int j = 0; j < KEYS; ++j) top = fmax(top, row[j]);
      const float base = top == -INFINITY ? 0 : top;  // no key seen yet
      for (int j = 0; j < KEYS; ++j) {
        row[j] = exp(row[j] - base);
        sum += row[j];
      }
      shrinks[thread] = exp(tops[thread] - base);
      totals[thread] = totals[thread] * shrinks[thread] + sum;
      tops[thread] = top;
    }
    barrier(CLK_LOCAL_MEM_FENCE);
    for (int i = 0; i < OWN; ++i) {
      for (int part = 0; part < PARTS; ++part) results[i * PARTS + part] *= shrinks[z * OWN + i];
    }
    for (int first = 0; first < KEYS; first += DEPTH) {
      barrier(CLK_LOCAL_MEM_FENCE);
      for (int e = thread; e < DEPTH * SLICE; e += THREADS) {
        const int t = e / SLICE, c = e % SLICE, at = key + first + t;
        values[e] = at < end && c < cols ? GET(v, start + at, kv_column + slice + c) : 0;
      }
      barrier(CLK_LOCAL_MEM_FENCE);
      for (int t = 0; t < DEPTH; ++t) {
        local const float *share = shares + z * OWN * KEYS + first + t;
        for (int part = 0; part < PARTS; ++part) {
          const float8 of_v = vload8(part * SIDE + x, values + t * SLICE);
          results[0 * PARTS + part] += share[0 * KEYS] * of_v;
          results[1 * PARTS + part] += share[1 * KEYS] * of_v;
          results[2 * PARTS + part] += share[2 * KEYS] * of_v;
          results[3 * PARTS + part] += share[3 * KEYS] * of_v;
        }
      }
    }
  }
  barrier(CLK_LOCAL_MEM_FENCE);
  for (int i = 0; i < OWN; ++i) {
    const int row = z * OWN + i;
    if (row >= own_rows) continue;
    // A sink joins the scores and has no value.
    float share = 1 / totals[row];
    if (sinks_at.exists) {
      const float sink = FLOATS(sinks)[head], highest = fmax(tops[row], sink), shrink = exp(tops[row] - highest);
      share = shrink / (totals[row] * shrink + exp(sink - highest));
    }
    for (int part = 0; part < PARTS; ++part) {
      float parts[8];
      vstore8(results[i * PARTS + part] * share, 0, parts);
      for (int j = 0; j < 8; ++j) {
        const int c = (part * SIDE + x) * 8 + j;
        if (c < cols) SET(y, start + first_query + row, q_column + slice + c, parts[j]);
      }
    }
  }
}
