// How the kernels that multiply on tensor cores, in 16 bits and TF32, share out a layer's work.
#pragma once

#include "plan.h"

namespace charlm {
namespace cuda {

// The plan of `layers` layers in groups of `group` blocks with `tile` rows each, its cycles without
// the hand-over; more shared memory than the device has where nothing fits.
SequencePlan tensor_layout(const SequenceShape& shape, const DeviceFacts& device, int layers,
                           SequenceKernel kernel, int group, long long tile);

}  // namespace cuda
}  // namespace charlm
