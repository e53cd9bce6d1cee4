// What products of activations with themselves need before: rows that are not finite are found, and counted. A row is
// the work of a work-group. Limited by memory bandwidth.
#define THREADS 64

// kept[row] = 1 where the row of x, and that of y where y exists, are finite, else 0.
kernel __attribute__((reqd_work_group_size(THREADS, 1, 1))) void find_finite(MATRIX(x), MATRIX(y), MATRIX(kept),
                                                                             int cols) {
  local float places[THREADS];
  const long row = get_group_id(0);
  float bad = 0;
  for (int c = (int)get_local_id(0); c < cols; c += THREADS) {
    if (!isfinite(GET(x, row, c)) || (y_at.exists && !isfinite(GET(y, row, c)))) bad = 1;
  }
  bad = group_maximum(bad, places);
  if (get_local_id(0) == 0) INTS(kept)[row] = bad == 0;
}

// dropped[0, 0] += the number of zeros. One work-group: the sum has one order.
kernel __attribute__((reqd_work_group_size(THREADS, 1, 1))) void count_dropped(MATRIX(kept), MATRIX(dropped),
                                                                               int rows) {
  local int counts[THREADS];
  const int thread = (int)get_local_id(0);
  int count = 0;
  for (int r = thread; r < rows; r += THREADS) count += INTS(kept)[r] == 0;
  counts[thread] = count;
  barrier(CLK_LOCAL_MEM_FENCE);
  if (thread != 0) return;
  for (int i = 1; i < THREADS; ++i) count += counts[i];
  INTS(dropped)[0] += count;
}

// difference = y - x in x's dtype.
kernel void subtract(MATRIX(x), MATRIX(y), MATRIX(difference), long rows, long cols) {
  const long col = get_global_id(0), row = get_global_id(1);
  if (row < rows && col < cols) SET(difference, row, col, GET(y, row, col) - GET(x, row, col));
}
