// Weights that stay codes. Neighbouring threads have neighbouring outputs, whose words are neighbours in memory.
#define OUTPUTS 32
#define SLICES 8

uint code_at(global const char *words, Place words_at, int bits, long output, long input) {
  const long bit = input * bits, word = bit / 32;
  const int shift = (int)(bit % 32);
  uint code = (uint)INTS(words)[word * words_at.stride + output] >> shift;
  if (shift + bits > 32) code |= (uint)INTS(words)[(word + 1) * words_at.stride + output] << (32 - shift);
  return code & ((1u << bits) - 1);
}

// A thread for each element: get_global_id(0) is the output. Limited by memory bandwidth.
kernel void dequantize_packed(MATRIX(words), MATRIX(scales), MATRIX(zeros), int bits, long group_size, MATRIX(w),
                              long outputs, long inputs) {
  const long output = get_global_id(0), input = get_global_id(1);
  if (output >= outputs || input >= inputs) return;
  const long group = input / group_size;
  const int code = (int)code_at(words, words_at, bits, output, input),
            zero = BYTES(zeros)[group * zeros_at.stride + output];
  SET(w, output, input, GET(scales, group, output) * (float)(code - zero));
}

// A row of x and OUTPUTS outputs for each work-group; thread z takes every SLICES-th run of 32 inputs, which are whole
// words. Sums are in f32, in a fixed order. Limited by reading the words.
kernel __attribute__((reqd_work_group_size(OUTPUTS, SLICES, 1))) void packed_linear(
    MATRIX(x), MATRIX(words), MATRIX(scales), MATRIX(zeros), int bits, long group_size, MATRIX(bias), MATRIX(y),
    long outputs, long inputs) {
  local float sums[SLICES][OUTPUTS];
  const int own = (int)get_local_id(0), slice = (int)get_local_id(1);
  const long output = get_group_id(0) * OUTPUTS + own, row = get_group_id(1);
  float sum = 0;
  for (long first = slice * 32; output < outputs && first < inputs; first += SLICES * 32) {
    const long end = min(first + 32, inputs);
    long group = first / group_size, next = (group + 1) * group_size;
    float scale = GET(scales, group, output);
    int zero = BYTES(zeros)[group * zeros_at.stride + output];
    for (long input = first; input < end; ++input) {
      if (input == next) {
        ++group;
        next += group_size;
        scale = GET(scales, group, output);
        zero = BYTES(zeros)[group * zeros_at.stride + output];
      }
      const int code = (int)code_at(words, words_at, bits, output, input);
      sum = fma(GET(x, row, input), scale * (float)(code - zero), sum);
    }
  }
  sums[slice][own] = sum;
  barrier(CLK_LOCAL_MEM_FENCE);
  if (slice > 0 || output >= outputs) return;
  sum = bias_at.exists ? GET(bias, 0, output) : 0;
  for (int i = 0; i < SLICES; ++i) sum += sums[i][own];
  SET(y, row, output, sum);
}
