// Sums of matrices: a thread for each element. Limited by memory bandwidth.

kernel void add(MATRIX(x), float factor, MATRIX(y), long rows, long cols) {
  const long col = get_global_id(0), row = get_global_id(1);
  if (row < rows && col < cols) SET(y, row, col, fma(factor, GET(x, row, col), GET(y, row, col)));
}

kernel void add_rows(MATRIX(x), MATRIX(ids), MATRIX(weights), MATRIX(y), long rows, long cols) {
  const long col = get_global_id(0), row = get_global_id(1);
  if (row >= rows || col >= cols) return;
  const long to = INTS(ids)[row];
  SET(y, to, col, fma(FLOATS(weights)[row], GET(x, row, col), GET(y, to, col)));
}
