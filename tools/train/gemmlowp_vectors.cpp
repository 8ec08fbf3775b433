// tests/data/gemmlowp.bin: what gemmlowp's fixed-point functions, of which TensorFlow Lite's reference kernels
// are made, give for values of all sizes. Records of five little-endian int32: function, two or three arguments, result.
//
//   apt-get install libgemmlowp-dev g++
//   g++ -O1 -I/usr/include/gemmlowp tools/train/gemmlowp_vectors.cpp -o /tmp/vectors && /tmp/vectors > tests/data/gemmlowp.bin

#include <cstdint>
#include <cstdio>

#include "fixedpoint/fixedpoint.h"

using gemmlowp::FixedPoint;

static uint64_t state = 1;

// xorshift64*
static uint32_t bits() {
  state ^= state >> 12;
  state ^= state << 25;
  state ^= state >> 27;
  return static_cast<uint32_t>(state * 0x2545F4914F6CDD1Dull >> 32);
}

// Of any number of bits, the ends among them.
static int32_t any() {
  switch (bits() % 12) {
    case 0: return INT32_MAX;
    case 1: return INT32_MIN;
    case 2: return 0;
    default: return static_cast<int32_t>(bits()) >> (bits() % 31);
  }
}

static void put(int32_t function, int32_t a, int32_t b, int32_t c, int32_t result) {
  const int32_t record[] = {function, a, b, c, result};
  fwrite(record, sizeof record, 1, stdout);
}

int main() {
  // 0: MultiplyByQuantizedMultiplier of TensorFlow Lite's kernels/internal/common.h: value, multiplier, shift
  for (int count = 0; count < 400;) {
    const int32_t value = any(), multiplier = any() & INT32_MAX;
    const int32_t shift = static_cast<int32_t>(bits() % 62) - 31;
    const int left = shift > 0 ? shift : 0, right = shift > 0 ? 0 : -shift;
    const int64_t shifted = static_cast<int64_t>(value) * (int64_t{1} << left);
    if (shifted != static_cast<int32_t>(shifted)) continue;  // undefined there
    const int32_t product =
        gemmlowp::SaturatingRoundingDoublingHighMul(static_cast<int32_t>(shifted), multiplier);
    put(0, value, multiplier, shift, gemmlowp::RoundingDivideByPOT(product, right));
    count++;
  }
  // 1: exp of a value at most 0 with 5 bits before the point
  for (int count = 0; count < 200; count++) {
    const int32_t value = any() | INT32_MIN;
    const int32_t argument = count == 0 ? 0 : value;
    put(1, argument, 0, 0, gemmlowp::exp_on_negative_values(FixedPoint<int32_t, 5>::FromRaw(argument)).raw());
  }
  // 2: 1 / (1 + x) of a fraction x
  for (int count = 0; count < 200; count++) {
    const int32_t x = any() & INT32_MAX;
    put(2, x, 0, 0, gemmlowp::one_over_one_plus_x_for_x_in_0_1(FixedPoint<int32_t, 0>::FromRaw(x)).raw());
  }
}
