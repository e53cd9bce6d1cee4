// Norms: a group of columns is the work of a work-group, which reads it from memory once and then from the cache.
// Limited by memory bandwidth.
#define THREADS 64

// Work-group (g, r) has group g of row r.
kernel __attribute__((reqd_work_group_size(THREADS, 1, 1))) void rms_norm(MATRIX(x), MATRIX(weight), MATRIX(y),
                                                                          float eps, int width, int weights) {
  local float places[THREADS];
  const int thread = (int)get_local_id(0), of_weight = (int)(get_group_id(0) % weights);
  const long row = get_group_id(1), first = (long)get_group_id(0) * width;
  float squares = 0;
  for (int i = thread; i < width; i += THREADS) {
    const float value = GET(x, row, first + i);
    squares = fma(value, value, squares);
  }
  const float factor = 1 / sqrt(group_sum(squares, places) / width + eps);
  for (int i = thread; i < width; i += THREADS)
    SET(y, row, first + i, GET(x, row, first + i) * factor * GET(weight, of_weight, i));
}

// The mean of what is left after the first mean is taken off too: rounding makes it small, but not zero.
kernel __attribute__((reqd_work_group_size(THREADS, 1, 1))) void layer_norm(MATRIX(x), MATRIX(weight), MATRIX(bias),
                                                                            MATRIX(y), float eps, int width,
                                                                            int weights) {
  local float places[THREADS];
  const int thread = (int)get_local_id(0), of_weight = (int)(get_group_id(0) % weights);
  const long row = get_group_id(1), first = (long)get_group_id(0) * width;
  float sum = 0;
  for (int i = thread; i < width; i += THREADS) sum += GET(x, row, first + i);
  const float mean = group_sum(sum, places) / width;
  float left = 0;
  for (int i = thread; i < width; i += THREADS) left += GET(x, row, first + i) - mean;
  const float rest = group_sum(left, places) / width;
  float squares = 0;
  for (int i = thread; i < width; i += THREADS) {
    const float value = GET(x, row, first + i) - mean - rest;
    squares = fma(value, value, squares);
  }
  const float factor = 1 / sqrt(group_sum(squares, places) / width + eps);
  for (int i = thread; i < width; i += THREADS) {
    const float shift = bias_at.exists ? GET(bias, of_weight, i) : 0;
    SET(y, row, first + i, (GET(x, row, first + i) - mean - rest) * factor * GET(weight, of_weight, i) + shift);
  }
}
