// Small systems of equations: a thread has one. Limited by memory bandwidth: neighbours' elements are neighbours, and
// each is read as often as an inner loop needs it.
//
// Numbers are f64, or, where a device has none, pairs of f32 whose sum has 48 bits (Dekker 1971).
#ifdef HAS_DOUBLES
#pragma OPENCL EXTENSION cl_khr_fp64 : enable
typedef double Wide;
Wide widened(float x) { return x; }
float narrowed(Wide x) { return (float)x; }
Wide less_product(Wide a, Wide b, Wide c) { return a - b * c; }
Wide plus(Wide a, Wide b) { return a + b; }
Wide times(Wide a, Wide b) { return a * b; }
Wide over(Wide a, Wide b) { return a / b; }
Wide root(Wide a) { return sqrt(a); }
#else
typedef float2 Wide;
Wide widened(float x) { return (Wide)(x, 0); }
float narrowed(Wide x) { return x.s0 + x.s1; }
Wide two_sum(float a, float b) {
  const float sum = a + b, from_b = sum - a;
  return (Wide)(sum, (a - (sum - from_b)) + (b - from_b));
}
// The same for |a| >= |b|.
Wide quick_sum(float a, float b) {
  const float sum = a + b;
  return (Wide)(sum, b - (sum - a));
}
Wide plus(Wide a, Wide b) {
  const Wide high = two_sum(a.s0, b.s0), low = two_sum(a.s1, b.s1);
  const Wide sum = quick_sum(high.s0, high.s1 + low.s0);
  return quick_sum(sum.s0, sum.s1 + low.s1);
}
Wide times(Wide a, Wide b) {
  const float product = a.s0 * b.s0;
  return quick_sum(product, fma(a.s0, b.s0, -product) + (a.s0 * b.s1 + a.s1 * b.s0));
}
Wide less_product(Wide a, Wide b, Wide c) { return plus(a, -times(b, c)); }
Wide over(Wide a, Wide b) {
  const float first = a.s0 / b.s0;
  const Wide rest = less_product(a, widened(first), b);
  const float second = rest.s0 / b.s0;
  const Wide last = less_product(rest, widened(second), b);
  return plus(quick_sum(first, second), widened(last.s0 / b.s0));
}
Wide root(Wide a) {
  const float first = sqrt(a.s0);
  const Wide rest = less_product(a, widened(first), widened(first));
  return quick_sum(first, rest.s0 / (2 * first));
}
#endif

// Element (i, j) of this thread's matrix, and element i of its vector.
#define L(i, j) factors[((long)(i) * n + (j)) * count + system]
#define Y(i) sides[(long)(i) * count + system]

// x_r becomes the y with (A_r + ridge mean(diag A_r) I) y = x_r by Cholesky's A = L L', or 0.
// scratch: count * (n * n + n) Wide
kernel void solve_systems(MATRIX(a), MATRIX(x), MATRIX(scratch), float ridge, int n, long count) {
  const long system = get_global_id(0);
  if (system >= count) return;
  global Wide *factors = (global Wide *)scratch, *sides = factors + (long)n * n * count;
  global const float *matrix = FLOATS(a) + system * a_at.stride;
  Wide trace = widened(0);
  for (int i = 0; i < n; ++i) trace = plus(trace, widened(matrix[(long)i * n + i]));
  const Wide shift = over(times(widened(ridge), trace), widened((float)n));
  bool positive = true;
  for (int i = 0; i < n; ++i) {
    for (int j = 0; j <= i; ++j) {
      Wide sum = widened(matrix[(long)i * n + j]);
      if (j == i) sum = plus(sum, shift);
      for (int k = 0; k < j; ++k) sum = less_product(sum, L(i, k), L(j, k));
      if (j < i) {
        L(i, j) = over(sum, L(j, j));
      } else {
        positive = positive && narrowed(sum) > 0 && isfinite(narrowed(sum));
        L(i, i) = root(sum);
      }
    }
    Wide side = widened(FLOATS(x)[system * x_at.stride + i]);
    for (int k = 0; k < i; ++k) side = less_product(side, L(i, k), Y(k));
    Y(i) = over(side, L(i, i));
  }
  for (int i = n - 1; i >= 0; --i) {
    Wide side = Y(i);
    for (int k = i + 1; k < n; ++k) side = less_product(side, L(k, i), Y(k));
    Y(i) = over(side, L(i, i));
  }
  for (int i = 0; i < n; ++i) FLOATS(x)[system * x_at.stride + i] = positive ? narrowed(Y(i)) : 0;
}
