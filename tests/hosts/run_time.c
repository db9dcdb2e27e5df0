/*
 * The functions that kernels import, by the names of the DSL's run-time library and of TVM-FFI's. What the arguments are
 * was read off the calls that the DSL generates; launch configurations are as in the CUDA run time's API.
 *
 * Each leaves the stack below it filled with one byte. What is left there is in the padding of the parameters of a
 * kernel, which nobody writes.
 */
#include "run_time.h"

#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <tvm/ffi/c_api.h>
#include <tvm/ffi/extra/c_env_api.h>

enum { DEVICES = 2, LIBRARY = 0x11b000, KERNEL = 0x4e1000, MOST_KERNELS = 16 };
enum { CLUSTER = 4, ATTRIBUTE_BYTES = 64 };

static const uint32_t FAT_BINARY = 0xba55ed50;

struct settings settings;
int launches;

static const char *kernels[MOST_KERNELS]; /* by the order in which they were first asked for */
static int stack_byte;

void fill_stack(int byte)
{
  char area[1 << 16];
  stack_byte = byte;
  memset(area, byte, sizeof area);
  __asm__ volatile("" : : "r"(area) : "memory");
}

void print_text(const char *text)
{
  for (; *text; text++)
    if (*text == '\n')
      fputs("\\n", stdout);
    else
      putchar(*text);
}

static void print_bytes(const unsigned char *bytes, size_t count)
{
  for (size_t at = 0; at < count; at++)
    printf("%02x", bytes[at]);
}

/* Return what a function of the run time returns, and end its line. */
static int answer(const char *name)
{
  int code = 0;
  if (settings.failing && strcmp(settings.failing, name) == 0 && settings.succeeding-- <= 0)
    code = settings.failure;
  printf(code ? " = error %d\n" : "\n", code);
  fill_stack(stack_byte);
  return code;
}

static uint64_t hash(const unsigned char *bytes, size_t count)
{
  uint64_t found = 0xcbf29ce484222325u; /* FNV-1a */
  for (size_t at = 0; at < count; at++)
    found = (found ^ bytes[at]) * 0x100000001b3u;
  return found;
}

/* What a cubin is wrapped in, as cuobjdump reads it: this, and then so many bytes. */
struct fat_binary {
  uint32_t magic;
  uint16_t version, header_bytes;
  uint64_t bytes;
};

static const char *kernel_name(void *kernel)
{
  uintptr_t place = (uintptr_t)kernel - KERNEL;
  return place < MOST_KERNELS && kernels[place] ? kernels[place] : "no kernel";
}

/* Loading */

int _cudaLibraryLoadData(void **library, const struct fat_binary *code, const int *jit_options, void **jit_values,
                         int jit_count, const int *options, void **values, int count)
{
  if (code->magic != FAT_BINARY)
    printf("no fat binary: %08" PRIx32 "\n", code->magic);
  size_t size = code->magic == FAT_BINARY ? code->header_bytes + code->bytes : 0;
  printf("cudaLibraryLoadData %zu bytes %016" PRIx64 " options %d %d %d %d %d %d", size, hash((const void *)code, size),
         jit_options != NULL, jit_values != NULL, jit_count, options != NULL, values != NULL, count);
  *library = (void *)(uintptr_t)LIBRARY;
  return answer("cudaLibraryLoadData");
}

int _cudaLibraryGetKernel(void **kernel, void *library, const char *name)
{
  uintptr_t place = 0;
  while (place < MOST_KERNELS - 1 && kernels[place] && strcmp(kernels[place], name) != 0)
    place++;
  kernels[place] = strdup(name); /* the caller has it on its stack */
  *kernel = (void *)(KERNEL + place);
  printf("cudaLibraryGetKernel %p %s", library, name);
  return answer("cudaLibraryGetKernel");
}

int _cuKernelGetAttribute(int *value, int attribute, void *kernel, int device)
{
  *value = 1024 + 16 * attribute;
  printf("cuKernelGetAttribute %d device %d of %s", attribute, device, kernel_name(kernel));
  return answer("cuKernelGetAttribute");
}

int _cudaKernelSetAttributeForDevice(void *kernel, int attribute, int value, int device)
{
  printf("cudaKernelSetAttributeForDevice %d to %d device %d of %s", attribute, value, device, kernel_name(kernel));
  return answer("cudaKernelSetAttributeForDevice");
}

int _cudaFuncSetAttribute(void *kernel, int attribute, int value)
{
  printf("cudaFuncSetAttribute %d to %d of %s", attribute, value, kernel_name(kernel));
  return answer("cudaFuncSetAttribute");
}

/* Devices and streams */

int _cudaDeviceGetAttribute(int *value, int attribute, int device)
{
  *value = 232448 + attribute + device;
  printf("cudaDeviceGetAttribute %d device %d", attribute, device);
  return answer("cudaDeviceGetAttribute");
}

int _cudaGetDevice(int *device)
{
  *device = settings.device;
  printf("cudaGetDevice %d", settings.device);
  return answer("cudaGetDevice");
}

int _cudaSetDevice(int device)
{
  settings.device = device;
  printf("cudaSetDevice %d", device);
  return answer("cudaSetDevice");
}

TVMFFIStreamHandle TVMFFIEnvGetStream(int32_t type, int32_t device)
{
  printf("TVMFFIEnvGetStream type %d device %d", type, device);
  answer("TVMFFIEnvGetStream");
  return (TVMFFIStreamHandle)(uintptr_t)(0x57e000 + device);
}

/* Launching */

struct attribute {
  int id;
  int padding;
  unsigned char value[ATTRIBUTE_BYTES];
};

struct configuration {
  unsigned grid[3], block[3];
  size_t shared_bytes;
  void *stream;
  struct attribute *attributes;
  unsigned count;
};

static void print_attribute(const struct attribute *attribute)
{
  size_t used = attribute->id == CLUSTER ? 3 * sizeof(int) : sizeof(int); /* of a union that has room for others */
  printf("  attribute %d ", attribute->id);
  print_bytes(attribute->value, used);
  printf("\n");
}

static void print_parameters(const char *name, void **parameters)
{
  const struct function *function = settings.functions;
  while (function && strcmp(function->name, name) != 0)
    function = function->next;
  if (!function)
    printf("  parameters unknown\n");
  for (int at = 0; function && at < function->count; at++) {
    printf("  parameter %d %zu ", at, function->sizes[at]);
    print_bytes(parameters[at], function->sizes[at]);
    printf("\n");
  }
}

/* What `_cudaLaunchKernelEx` calls: launch.S. */
int record_launch(const struct configuration *with, void *kernel, void **parameters)
{
  launches++;
  printf("launch %s\n", kernel_name(kernel));
  printf("  grid %u %u %u block %u %u %u shared %zu stream %p attributes %u\n", with->grid[0], with->grid[1],
         with->grid[2], with->block[0], with->block[1], with->block[2], with->shared_bytes, with->stream, with->count);
  for (unsigned at = 0; at < with->count; at++)
    print_attribute(&with->attributes[at]);
  print_parameters(kernel_name(kernel), parameters);
  printf("launched");
  return answer("cudaLaunchKernelEx");
}

/* Errors */

void TVMFFIErrorSetRaisedFromCStr(const char *kind, const char *message)
{
  printf("raised %s: ", kind);
  print_text(message);
  answer("TVMFFIErrorSetRaisedFromCStr");
}

void TVMFFIErrorSetRaisedFromCStrParts(const char *kind, const char **parts, int32_t count)
{
  printf("raised %s: ", kind);
  for (int32_t at = 0; at < count; at++)
    if (parts[at])
      print_text(parts[at]);
  answer("TVMFFIErrorSetRaisedFromCStrParts");
}

typedef void raise_parts(const char *kind, const char **parts, int32_t count);
typedef void raise_text(const char *kind, const char *message);

void CuteDSLRT_TVMFFISetRaisedCudaError(raise_parts *raise, int code)
{
  char words[64];
  const char *parts[] = {"CUDA error ", words};
  snprintf(words, sizeof words, "%d", code);
  raise("RuntimeError", parts, 2);
}

/* The DSL's own: a library is loaded once, and prepared for each device; it fails if no device takes it. */

static int refuse(raise_text *raise, int code)
{
  char words[64];
  snprintf(words, sizeof words, "the library is not loaded: CUDA error %d", code);
  raise("RuntimeError", words);
  return -1;
}

int cuda_dialect_init_library_once(void **state, int (*load)(void **), int (*prepare)(void **, int), raise_text *raise)
{
  void *library = NULL;
  int failures = 0;
  printf("cuda_dialect_init_library_once %p", *state);
  answer("cuda_dialect_init_library_once");
  if (*state)
    return 0;
  int code = load(&library);
  if (code)
    return refuse(raise, code);
  for (int device = 0; prepare && device < DEVICES; device++) {
    int found = prepare(&library, device);
    if (found) {
      code = found;
      failures++;
    }
  }
  if (failures == DEVICES)
    return refuse(raise, code);
  *state = library;
  return 0;
}

void cuda_dialect_unload_library_once(void **state)
{
  printf("cuda_dialect_unload_library_once %p", *state);
  answer("cuda_dialect_unload_library_once");
  *state = NULL;
}
