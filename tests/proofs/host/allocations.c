// Preloaded before torch: knows of every tensor's memory where it begins, so that a launch's
// pointers are told from its numbers and what points into one tensor stays in one object.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

enum { kMost = 1 << 16 };
static struct {
  uintptr_t begin, end;
} known[kMost];
static size_t count;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;

// What torch's CPU allocator calls.
int posix_memalign(void** result, size_t alignment, size_t size) {
  static int (*real)(void**, size_t, size_t);
  if (!real) *(void**)&real = dlsym(RTLD_NEXT, "posix_memalign");
  const int code = real(result, alignment, size);
  if (code) return code;
  const uintptr_t begin = (uintptr_t)*result, end = begin + size;
  pthread_mutex_lock(&mutex);
  size_t kept = 0;
  for (size_t k = 0; k < count; ++k)  // whoever lay there was freed
    if (known[k].end <= begin || end <= known[k].begin) known[kept++] = known[k];
  count = kept < kMost ? kept : 0;
  known[count].begin = begin;
  known[count++].end = end;
  pthread_mutex_unlock(&mutex);
  return 0;
}

// The first address of the allocation that holds `address`, else 0.
uintptr_t allocation_of(uintptr_t address) {
  uintptr_t found = 0;
  pthread_mutex_lock(&mutex);
  for (size_t k = 0; k < count; ++k)
    if (known[k].begin <= address && address < known[k].end) found = known[k].begin;
  pthread_mutex_unlock(&mutex);
  return found;
}
