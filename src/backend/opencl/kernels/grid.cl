// Grids: the search for them, and values on them.
#define THREADS 64
#define HELD 1024  // weights of a group that local memory holds; those of longer groups are read again

typedef struct {
  float top, shrink_step, norm;
  int candidates, symmetric, signed_scales, search_zeros, group_size;
} Search;

typedef struct {
  float scale, zero;
} Candidate;

// The scale as fp16 holds it, neither zero nor infinite.
float stored_scale(float scale) {
  ushort half_scale;
  vstore_half_rte(fabs(scale), 0, (private half *)&half_scale);
  return copysign(fmin(fmax(vload_half(0, (private const half *)&half_scale), 0x1p-24f), 65504.0f), scale);
}

// Each candidate is tried `tries` times: with both signs, or with three zeros.
int tries_of(Search s) {
  return s.symmetric ? (s.signed_scales && s.candidates > 1 ? 2 : 1) : s.search_zeros ? 3 : 1;
}

// Try `index` for a group whose smallest weight, or 0, is lo and whose largest, or 0, is hi.
Candidate candidate_of(Search s, float lo, float hi, int index) {
  const int tries = tries_of(s), attempt = index % tries;
  const float p = 1 - (float)(index / tries) * s.shrink_step, middle = (s.top + 1) / 2;
  if (lo == 0 && hi == 0) {
    lo = -1;
    hi = 1;
  }
  Candidate result;
  if (!s.symmetric) {
    const float step = attempt == 0 ? 0 : attempt == 1 ? -1 : 1;
    result.scale = stored_scale(divided(p * (hi - lo), s.top));
    result.zero = fmin(fmax(rint(divided(-lo * p, result.scale)) + step, 0.0f), s.top);
  } else if (s.signed_scales) {
    const float widest = -lo >= hi ? -lo : -hi;
    result.scale = stored_scale(divided((attempt == 1 ? -1.05f * p : p) * widest, middle));
    result.zero = middle;
  } else {
    result.scale = stored_scale(divided(p * 2 * fmax(-lo, hi), s.top));
    result.zero = middle;
  }
  return result;
}

float error_of(float value, float importance, Candidate c, float inverse, float top, float norm) {
  const float q = fmin(fmax(rint(value * inverse), -c.zero), top - c.zero);
  const float error = fma(c.scale, q, -value);
  if (norm == 2) return importance * error * error;
  return error == 0 ? 0 : importance * exp2(norm * log2(fabs(error)));
}

// Work-group (g, r) has group g of row r. A thread tries candidates thread, thread + THREADS, ... over the whole group,
// whose weights are in local memory; then the best of all are compared. Limited by arithmetic: about ten instructions
// for each weight and candidate.
kernel __attribute__((reqd_work_group_size(THREADS, 1, 1))) void find_grid(MATRIX(w), MATRIX(importance),
                                                                           MATRIX(scales), MATRIX(zeros), Search s) {
  local float held[HELD], weights[HELD], places[THREADS];
  local int indices[THREADS];
  const int thread = (int)get_local_id(0), n = s.group_size;
  const long row = get_group_id(1), group = get_group_id(0);
  global const float *values = FLOATS(w) + row * w_at.stride + group * n;
  global const float *importances = FLOATS(importance) + group * n;
  const int is_held = n <= HELD, weighted = importance_at.exists;
  float lo = 0, hi = 0;
  for (int k = thread; k < n; k += THREADS) {
    const float value = values[k];
    lo = fmin(lo, value);
    hi = fmax(hi, value);
    if (is_held) {
      held[k] = value;
      weights[k] = weighted ? importances[k] : 1;
    }
  }
  lo = -group_maximum(-lo, places);
  hi = group_maximum(hi, places);

  float least = INFINITY;
  int best = INT_MAX;
  for (int index = thread; index < s.candidates * tries_of(s); index += THREADS) {
    const Candidate c = candidate_of(s, lo, hi, index);
    const float inverse = 1 / c.scale;
    float error = 0;
    if (is_held) {
      for (int k = 0; k < n; ++k) error += error_of(held[k], weights[k], c, inverse, s.top, s.norm);
    } else {
      for (int k = 0; k < n; ++k)
        error += error_of(values[k], weighted ? importances[k] : 1, c, inverse, s.top, s.norm);
    }
    if (error < least) {
      least = error;
      best = index;
    }
  }
  places[thread] = least;
  indices[thread] = best;
  barrier(CLK_LOCAL_MEM_FENCE);
  if (thread != 0) return;
  for (int i = 1; i < THREADS; ++i) {
    if (places[i] < least || (places[i] == least && indices[i] < best)) {
      least = places[i];
      best = indices[i];
    }
  }
  const Candidate chosen = candidate_of(s, lo, hi, best == INT_MAX ? 0 : best);  // none errs less than infinity
  FLOATS(scales)[row * scales_at.stride + group] = chosen.scale;
  BYTES(zeros)[row * zeros_at.stride + group] = (uchar)chosen.zero;
}

// The same where there is one candidate: a thread for each group.
kernel void find_widest_grid(MATRIX(w), MATRIX(scales), MATRIX(zeros), Search s, long rows, long groups) {
  const long group = get_global_id(0), row = get_global_id(1);
  if (row >= rows || group >= groups) return;
  global const float *values = FLOATS(w) + row * w_at.stride + group * s.group_size;
  float lo = 0, hi = 0;
  for (int k = 0; k < s.group_size; ++k) {
    lo = fmin(lo, values[k]);
    hi = fmax(hi, values[k]);
  }
  const Candidate chosen = candidate_of(s, lo, hi, 0);
  FLOATS(scales)[row * scales_at.stride + group] = chosen.scale;
  BYTES(zeros)[row * zeros_at.stride + group] = (uchar)chosen.zero;
}

// A thread for each element; limited by memory bandwidth.
kernel void round_columns(MATRIX(w), MATRIX(groups), MATRIX(scales), MATRIX(zeros), float top, MATRIX(codes),
                          long rows, long cols) {
  const long col = get_global_id(0), row = get_global_id(1);
  if (row >= rows || col >= cols) return;
  const int group = INTS(groups)[col];
  const float scale = FLOATS(scales)[row * scales_at.stride + group],
              zero = (float)BYTES(zeros)[row * zeros_at.stride + group];
  const float q = rint(divided(FLOATS(w)[row * w_at.stride + col], scale)) + zero;
  BYTES(codes)[row * codes_at.stride + col] = (uchar)fmin(fmax(q, 0.0f), top);
}

kernel void dequantize(MATRIX(codes), MATRIX(groups), MATRIX(scales), MATRIX(zeros), MATRIX(w), long rows,
                       long cols) {
  const long col = get_global_id(0), row = get_global_id(1);
  if (row >= rows || col >= cols) return;
  const int group = INTS(groups)[col];
  const float scale = FLOATS(scales)[row * scales_at.stride + group],
              zero = (float)BYTES(zeros)[row * zeros_at.stride + group];
  SET(w, row, col, scale * ((float)BYTES(codes)[row * codes_at.stride + col] - zero));
}
