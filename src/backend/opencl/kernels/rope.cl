// Rotary position embeddings: a thread rotates a pair. Limited by memory bandwidth.

// Columns count a row's pairs over all its heads.
kernel void rope(MATRIX(cosines), MATRIX(sines), MATRIX(offsets), int sequences, int interleaved, int head_dim,
                 int pairs, MATRIX(x), long rows, long cols) {
  const long col = get_global_id(0), row = get_global_id(1);
  if (row >= rows || col >= cols) return;
  const long position = row - LONGS(offsets)[sequence_of(row, LONGS(offsets), sequences)];
  const long head = col / pairs, i = col - head * pairs;
  const long first = head * head_dim + (interleaved ? 2 * i : i), second = first + (interleaved ? 1 : pairs);
  const float a = GET(x, row, first), b = GET(x, row, second);
  const float cosine = FLOATS(cosines)[position * cosines_at.stride + i],
              sine = FLOATS(sines)[position * sines_at.stride + i];
  SET(x, row, first, a * cosine - b * sine);
  SET(x, row, second, b * cosine + a * sine);
}
