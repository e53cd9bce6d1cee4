// Codes and streams of bits: a thread for each word, or for each code. Limited by memory bandwidth; codes are read and
// written along rows, words along columns.

// get_global_id(0) is the row of codes, so that neighbours write neighbouring words.
kernel void pack(MATRIX(codes), int bits, MATRIX(words), long rows, long cols, long count) {
  const long row = get_global_id(0), word = get_global_id(1);
  if (row >= rows || word >= count) return;
  global const uchar *from = BYTES(codes) + row * codes_at.stride;
  uint value = 0;
  for (long code = word * 32 / bits; code * bits < word * 32 + 32; ++code) {
    const int shift = (int)(code * bits - word * 32);  // 3 bits may begin in the word before
    value |= shift >= 0 ? (uint)from[code] << shift : (uint)from[code] >> -shift;
  }
  INTS(words)[word * words_at.stride + row] = (int)value;
}

// The same shape of threads, where neighbours read neighbouring words.
kernel void unpack(MATRIX(words), int bits, MATRIX(codes), long rows, long cols) {
  const long row = get_global_id(0), col = get_global_id(1);
  if (row >= rows || col >= cols) return;
  const long bit = col * bits, word = bit / 32;
  const int shift = (int)(bit % 32);
  uint code = (uint)INTS(words)[word * words_at.stride + row] >> shift;
  if (shift + bits > 32) code |= (uint)INTS(words)[(word + 1) * words_at.stride + row] << (32 - shift);
  BYTES(codes)[row * codes_at.stride + col] = (uchar)(code & ((1u << bits) - 1));
}
