// Sums over the elements of each row, or of each group of it: the work of a work-group. Limited by memory bandwidth.
#define THREADS 64

// Work-group (g, r) has group g of row r.
kernel __attribute__((reqd_work_group_size(THREADS, 1, 1))) void group_products(MATRIX(x), MATRIX(y),
                                                                                MATRIX(products), int group_size) {
  local float places[THREADS];
  const long row = get_group_id(1), first = (long)get_group_id(0) * group_size;
  float sum = 0;
  for (int i = (int)get_local_id(0); i < group_size; i += THREADS)
    sum = fma(GET(x, row, first + i), GET(y, row, first + i), sum);
  sum = group_sum(sum, places);
  if (get_local_id(0) == 0) SET(products, row, get_group_id(0), sum);
}

kernel __attribute__((reqd_work_group_size(THREADS, 1, 1))) void add_row_norms(MATRIX(x), MATRIX(norms), int cols) {
  local float places[THREADS];
  const long row = get_group_id(0);
  float sum = 0;
  for (int i = (int)get_local_id(0); i < cols; i += THREADS) {
    const float value = GET(x, row, i);
    sum = fma(value, value, sum);
  }
  sum = group_sum(sum, places);
  if (get_local_id(0) == 0) SET(norms, row, 0, GET(norms, row, 0) + sum);
}
