// Convolutions over tokens: a thread for each element. Limited by memory bandwidth.

kernel void causal_convolution(MATRIX(x), MATRIX(weight), MATRIX(bias), MATRIX(offsets), int sequences, int taps,
                               int activation, MATRIX(y), long rows, long cols) {
  const long col = get_global_id(0), row = get_global_id(1);
  if (row >= rows || col >= cols) return;
  const long position = row - LONGS(offsets)[sequence_of(row, LONGS(offsets), sequences)];
  float sum = bias_at.exists ? GET(bias, 0, col) : 0;
  for (int back = 0; back < taps && back <= position; ++back)
    sum = fma(GET(weight, col, taps - 1 - back), GET(x, row - back, col), sum);
  SET(y, row, col, activated(activation, sum));
}
