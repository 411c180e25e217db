#include "cpu/isa/scalar.h"

#include <chrono>
#include <cmath>
#include <thread>

namespace charlm {

float scalar_log(float x) { return std::log(x); }
double scalar_log(double x) { return std::log(x); }
void yield_thread() { std::this_thread::yield(); }
long long nanoseconds() {
  const auto now = std::chrono::steady_clock::now().time_since_epoch();
  return std::chrono::duration_cast<std::chrono::nanoseconds>(now).count();
}

}  // namespace charlm
