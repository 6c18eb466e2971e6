"""Functions of float32 without branches and calls, of which the compilers of CPUs make vectors; rounding to float16.

Within 2 ULP of the exact value; the polynomials are minimax fits, those of the CPU provider. A driver's own ``erf``
may be a call for each element, which takes over ten times as long.
"""

from __future__ import annotations

EXPONENTIAL = """inline float exponential_of(const float x) {
  const float t = x > 89.0f ? 89.0f : x < -105.0f ? -105.0f : x;
  const float shifted = fma(t, 1.442695041f, 12582912.0f), n = shifted - 12582912.0f; /* rounded to a whole number */
  const float r = fma(n, 2.12194440e-4f, fma(n, -0.693359375f, t));
  float p = 1.395171741e-03f;
  p = fma(p, r, 8.369598538e-03f);
  p = fma(p, r, 4.166618735e-02f);
  p = fma(p, r, 1.666651219e-01f);
  p = fma(p, r, 0.5f);
  p = fma(p, r * r, r) + 1.0f;
  const int whole = as_int(shifted) - 0x4b400000, part = whole >> 1;
  return p * as_float((part + 127) << 23) * as_float((whole - part + 127) << 23);
}
"""

ERROR = """inline float error_of(const float x) {
  const float a = as_float(as_int(x) & 0x7fffffff), z = x * x, t = a > 3.95f ? 3.95f : a;
  float p = -5.953739164e-04f;
  p = fma(p, z, 4.985940177e-03f);
  p = fma(p, z, -2.676171996e-02f);
  p = fma(p, z, 1.128168255e-01f);
  p = fma(p, z, -3.761247993e-01f);
  p = fma(p, z, 1.283791512e-01f);
  float q = 4.938213351e-06f;
  q = fma(q, t, -4.558117143e-05f);
  q = fma(q, t, -4.958682985e-05f);
  q = fma(q, t, 2.930157818e-03f);
  q = fma(q, t, -2.267413959e-02f);
  q = fma(q, t, 1.052626967e-01f);
  q = fma(q, t, 6.356252432e-01f);
  q = fma(q, t, 1.285517514e-01f);
  const float large = 1.0f - exponential_of(-fma(q, t, t));
  const float signed_large = as_float(as_int(large) | (as_int(x) & 0x80000000));
  return a < 0.927f ? fma(p, x, x) : signed_large;
}
"""

AS_HALF = """inline float as_half(float x) {
  ushort bits;
  vstore_half_rte(x, 0, (half*)&bits);
  return vload_half(0, (half*)&bits);
}
"""
"""The nearest number that float16 has: what is computed in steps rounds after each, as separate kernels would."""


def mathematics(body: str) -> str:
    """The definitions that a kernel's body needs."""
    found = EXPONENTIAL + ERROR if "error_of(" in body else ""
    return found + (AS_HALF if "as_half(" in body else "")
