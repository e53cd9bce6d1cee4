// Symmetric matrices: a thread for each element. Limited by memory bandwidth; one side of each copy is scattered.

kernel void mirror(MATRIX(h), long n) {
  const long col = get_global_id(0), row = get_global_id(1);
  if (row < n && col < row) FLOATS(h)[col * h_at.stride + row] = FLOATS(h)[row * h_at.stride + col];
}

kernel void permute_symmetric(MATRIX(h), MATRIX(order), float damp, MATRIX(y), long n) {
  const long col = get_global_id(0), row = get_global_id(1);
  if (row >= n || col >= n) return;
  float value = 0;
  if (col <= row) {
    const long a = INTS(order)[row], b = INTS(order)[col];
    value = FLOATS(h)[max(a, b) * h_at.stride + min(a, b)] + (row == col ? damp : 0);
  }
  FLOATS(y)[row * y_at.stride + col] = value;
}
