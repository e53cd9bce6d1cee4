// Elements moved as they are, or in another dtype: a thread for each. Limited by memory bandwidth.

kernel void convert(MATRIX(x), MATRIX(y), long rows, long cols) {
  const long col = get_global_id(0), row = get_global_id(1);
  if (row < rows && col < cols) SET(y, row, col, GET(x, row, col));
}

kernel void gather_rows(MATRIX(table), MATRIX(ids), MATRIX(y), long rows, long cols) {
  const long col = get_global_id(0), row = get_global_id(1);
  if (row < rows && col < cols) SET(y, row, col, GET(table, INTS(ids)[row], col));
}

// Elements of `size` bytes.
kernel void gather_columns(MATRIX(x), MATRIX(ids), MATRIX(y), int size, long rows, long cols) {
  const long col = get_global_id(0), row = get_global_id(1);
  if (row >= rows || col >= cols) return;
  const long from = INDEX(x, row, INTS(ids)[col]), to = INDEX(y, row, col);
  if (size == 4) {
    ((global uint *)y)[to] = ((global const uint *)x)[from];
  } else if (size == 2) {
    ((global ushort *)y)[to] = ((global const ushort *)x)[from];
  } else {
    ((global uchar *)y)[to] = ((global const uchar *)x)[from];
  }
}

kernel void clear(MATRIX(y), int size, long rows, long cols) {
  const long col = get_global_id(0), row = get_global_id(1);
  if (row >= rows || col >= cols) return;
  const long to = INDEX(y, row, col);
  if (size == 4) {
    ((global uint *)y)[to] = 0;
  } else if (size == 2) {
    ((global ushort *)y)[to] = 0;
  } else {
    ((global uchar *)y)[to] = 0;
  }
}
