// What the CPU of Bochs, as bochscpu-python packs it, needs to be found before the package's own
// library: functions of glibc 2.38 for older ones, and another CPU in the place of the only model
// that the package makes, which has no AVX512_VNNI.
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

void* (*chosen_model)(void* cpu);

void* _Z23create_corei3_cnl_cpuidP8BX_CPU_C(void* cpu) { return chosen_model(cpu); }

unsigned long long __isoc23_strtoull(const char* text, char** end, int base) {
  return strtoull(text, end, base);
}

int __isoc23_sscanf(const char* text, const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  const int read = vsscanf(text, format, arguments);
  va_end(arguments);
  return read;
}
