// Prints what the planner learns of a device: the largest cluster, the clusters of each size that
// run at once, and whether an error was left behind. Argument: the size from which the query fails.
#include <cstdio>
#include <cstdlib>

#include "../../../csrc/cuda/device.cu"

int main(int, char** arguments) {
  fails_from = atoi(arguments[1]);
  charlm::cuda::DeviceFacts facts = {};
  const int code = charlm::cuda::device_facts(&facts);
  printf("%d %d %d", code, facts.max_cluster, error_pending);
  for (int size = 1; size <= 16; size *= 2) printf(" %lld", facts.clusters_of(size));
  printf("\n");
}
