// Notes launches as lines of JSON, which take_launches() hands out.
#include "record.h"

#include <dlfcn.h>
#include <stdint.h>

#include <string>

namespace recorded {
namespace {

std::string lines, arguments;

std::string triple(const dim3& d) {
  return "[" + std::to_string(d.x) + "," + std::to_string(d.y) + "," + std::to_string(d.z) + "]";
}

uintptr_t allocation_of(uintptr_t address) {
  using Find = uintptr_t (*)(uintptr_t);
  static const Find find = reinterpret_cast<Find>(dlsym(RTLD_DEFAULT, "allocation_of"));
  return find(address);
}

}  // namespace

void begin(const void* kernel, const cudaLaunchConfig_t& config) {
  Dl_info where = {};
  dladdr(kernel, &where);
  dim3 cluster;
  bool cooperative = false;
  if (config.numAttrs) {
    cooperative = config.attrs->id == cudaLaunchAttributeCooperative;
    if (!cooperative) cluster = config.attrs->val.clusterDim;
  }
  const auto offset = static_cast<const char*>(kernel) - static_cast<const char*>(where.dli_fbase);
  lines += "{\"kernel\":" + std::to_string(offset) + ",\"grid\":" + triple(config.gridDim) +
           ",\"block\":" + triple(config.blockDim) + ",\"cluster\":" + std::to_string(cluster.x) +
           ",\"cooperative\":" + (cooperative ? "true" : "false") +
           ",\"bytes\":" + std::to_string(config.dynamicSmemBytes);
  arguments.clear();
}

void argument(const void* bytes, size_t size, size_t alignment) {
  const auto* from = static_cast<const unsigned char*>(bytes);
  std::string hex, pointers;
  for (size_t k = 0; k < size; ++k) {
    char two[3];
    snprintf(two, sizeof two, "%02x", from[k]);
    hex += two;
  }
  for (size_t k = 0; alignment == 8 && k + 8 <= size; k += 8) {
    uintptr_t word;
    memcpy(&word, from + k, sizeof word);
    if (const uintptr_t base = allocation_of(word))
      pointers +=
          (pointers.empty() ? "" : ",") + ("\"" + std::to_string(k)) + "\":" + std::to_string(base);
  }
  arguments += (arguments.empty() ? "" : ",") + ("{\"bytes\":\"" + hex) + "\",\"pointers\":{" +
               pointers + "}}";
}

void end() { lines += ",\"arguments\":[" + arguments + "]}\n"; }

}  // namespace recorded

extern "C" __attribute__((visibility("default"))) const char* take_launches() {
  static std::string taken;
  taken.swap(recorded::lines);
  recorded::lines.clear();
  return taken.c_str();
}
