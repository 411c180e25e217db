#include "scalar.h"

#include <cmath>
#include <thread>

namespace charlm {

float scalar_log(float x) { return std::log(x); }
double scalar_log(double x) { return std::log(x); }
void yield_thread() { std::this_thread::yield(); }

}  // namespace charlm
