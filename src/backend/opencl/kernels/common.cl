// What precedes every other kernel file: matrices as arguments, element types, sums over a work-group. Sums and products
// are rounded one by one unless fma() says otherwise, so that all devices give nearly the same.
#pragma OPENCL FP_CONTRACT OFF

// For kernels with many registers, on GPUs whose registers hold REGISTER_LANES floats: threads of a sub-group as many, so
// that a float takes one register.
#if defined(REGISTER_LANES) && defined(cl_intel_required_subgroup_size)
#define FEW_LANES __attribute__((intel_reqd_sub_group_size(REGISTER_LANES)))
#else
#define FEW_LANES
#endif

// As DType numbers them.
#define F32 0
#define F16 1
#define BF16 2
#define I32 3
#define U8 4

// Where a matrix lies in its buffer, in elements. It exists where it has elements.
typedef struct {
  long offset, stride;
  int dtype, exists;
} Place;

// A matrix as two parameters of a kernel, and its elements as f32.
#define MATRIX(name) global char *name, const Place name##_at
#define GET(name, row, col) read_element(name, name##_at.dtype, INDEX(name, row, col))
#define SET(name, row, col, value) write_element(name, name##_at.dtype, INDEX(name, row, col), value)
#define INDEX(name, row, col) (name##_at.offset + (long)(row) * name##_at.stride + (long)(col))
// Its elements where their type is known.
#define FLOATS(name) ((global float *)(name) + name##_at.offset)
#define INTS(name) ((global int *)(name) + name##_at.offset)
#define BYTES(name) ((global uchar *)(name) + name##_at.offset)
#define LONGS(name) ((global long *)(name))  // of a matrix of words that starts its buffer

float of_bf16(ushort bits) { return as_float((uint)bits << 16); }
ushort to_bf16(float value) {
  const uint raw = as_uint(value);
  const bool nan = (raw & 0x7fffffffu) > 0x7f800000u;
  return (ushort)(nan ? (raw >> 16) | 0x40u : (raw + 0x7fffu + ((raw >> 16) & 1u)) >> 16);
}

float read_element(global const char *elements, int dtype, long i) {
  if (dtype == F32) return ((global const float *)elements)[i];
  if (dtype == F16) return vload_half(i, (global const half *)elements);
  return of_bf16(((global const ushort *)elements)[i]);
}
void write_element(global char *elements, int dtype, long i, float value) {
  if (dtype == F32) {
    ((global float *)elements)[i] = value;
  } else if (dtype == F16) {
    vstore_half_rte(value, i, (global half *)elements);
  } else {
    ((global ushort *)elements)[i] = to_bf16(value);
  }
}

// The nearest float to a / b.
float divided(float a, float b) {
#ifdef EXACT_DIVISION
  return a / b;
#else
  const float q = a / b, rest = fma(-q, b, a);
  return isfinite(rest) ? q + rest / b : q;
#endif
}

// The sum over the work-group's threads, in each of them, in a fixed order. Their number is a power of two, and
// `places` has one for each.
float group_sum(float value, local float *places) {
  const int thread = (int)get_local_id(0);
  places[thread] = value;
  barrier(CLK_LOCAL_MEM_FENCE);
  for (int apart = (int)get_local_size(0) / 2; apart > 0; apart /= 2) {
    if (thread < apart) places[thread] += places[thread + apart];
    barrier(CLK_LOCAL_MEM_FENCE);
  }
  const float sum = places[0];
  barrier(CLK_LOCAL_MEM_FENCE);
  return sum;
}
float group_maximum(float value, local float *places) {
  const int thread = (int)get_local_id(0);
  places[thread] = value;
  barrier(CLK_LOCAL_MEM_FENCE);
  for (int apart = (int)get_local_size(0) / 2; apart > 0; apart /= 2) {
    if (thread < apart) places[thread] = fmax(places[thread], places[thread + apart]);
    barrier(CLK_LOCAL_MEM_FENCE);
  }
  const float maximum = places[0];
  barrier(CLK_LOCAL_MEM_FENCE);
  return maximum;
}

// The sequence of row r, the last one that starts at or before r.
int sequence_of(long r, global const long *offsets, int sequences) {
  int low = 0, high = sequences;
  while (high - low > 1) {
    const int middle = (low + high) / 2;
    if (offsets[middle] <= r)
      low = middle;
    else
      high = middle;
  }
  return low;
}

// tanh(x), which is 1 in f32 where x is 10; not every driver's is, there and beyond.
float hyperbolic_tangent(float x) { return fabs(x) >= 10 ? copysign(1.0f, x) : tanh(x); }

// Activation of ops/gates.h.
#define SILU 0
#define GELU 1
#define GELU_TANH 2
#define RELU 3
#define RELU_SQUARED 4
#define CLAMPED_SWIGLU 5
#define QUICK_GELU 6
#define SIGMOID 7
#define SOFTPLUS 8

// x between -bound and bound; NaN stays.
float bounded(float x, float bound) { return x < -bound ? -bound : x > bound ? bound : x; }
float softplus(float x) { return (x < 0 ? 0 : x) + log1p(exp(-fabs(x))); }

float activated(int activation, float x) {
  switch (activation) {
    case SILU:
      return x / (1 + exp(-x));
    case GELU:
      return 0.5f * x * erfc(-x * 0.70710678118654752f);
    case GELU_TANH:  // (1 + tanh(u)) / 2 = 1 / (1 + exp(-2 u))
      return x / (1 + exp(-1.5957691216057308f * (x + 0.044715f * x * x * x)));
    case RELU:
      return x < 0 ? 0 : x;  // NaN stays
    case RELU_SQUARED:
      return x < 0 ? 0 : x * x;
    case CLAMPED_SWIGLU: {
      const float most = x > 7 ? 7 : x;
      return most / (1 + exp(-1.702f * most));
    }
    case QUICK_GELU:
      return x / (1 + exp(-1.702f * x));
    case SIGMOID:
      return 1 / (1 + exp(-x));
    case SOFTPLUS:
      return softplus(x);
    default:
      return x;
  }
}
