// The few scalar library calls that kernels make, compiled for the baseline machine and
// kept out of line so that no kernel file needs a standard header.
#pragma once

namespace charlm {

float scalar_log(float x);
double scalar_log(double x);
void yield_thread();
long long nanoseconds();  // since some time in the past

}  // namespace charlm

#define CHARLM_YIELD() ::charlm::yield_thread()
#define CHARLM_NANOSECONDS() ::charlm::nanoseconds()
