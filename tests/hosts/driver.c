/*
 * Calls a kernel's function as TVM-FFI does, and prints what it does: `driver BLOB SYMBOL < CALLS`.
 *
 * The calls are words, of which `host_values.py` says more. Each is made in a child of its own, which has loaded
 * nothing yet; one that launches something once more, with another byte all over the stack.
 */
#include "run_time.h"

#include <dlfcn.h>
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <tvm/ffi/c_api.h>

enum { MOST_LETTERS = 1 << 16, HAS_LAUNCHED = 3 };

struct call {
  char *name;
  int with_initializer, times, count;
  TVMFFIAny *values;
};

static void *allocate(size_t count, size_t size)
{
  void *made = calloc(count ? count : 1, size);
  if (!made)
    abort();
  return made;
}

static int more(char *word)
{
  return scanf("%65535s", word) == 1;
}

/* Return the next word of the input, which must have one. */
static char *next_word(void)
{
  static char word[MOST_LETTERS];
  if (!more(word)) {
    fprintf(stderr, "the description of a call ends early\n");
    exit(2);
  }
  return word;
}

static int64_t next_integer(void)
{
  return (int64_t)strtoull(next_word(), NULL, 0); /* takes a minus, too */
}

static void next_tensor(DLTensor *tensor)
{
  tensor->dtype.code = (uint8_t)next_integer();
  tensor->dtype.bits = (uint8_t)next_integer();
  tensor->dtype.lanes = (uint16_t)next_integer();
  tensor->device.device_type = (DLDeviceType)next_integer();
  tensor->device.device_id = (int32_t)next_integer();
  tensor->data = (void *)(uintptr_t)next_integer();
  tensor->byte_offset = (uint64_t)next_integer();
  tensor->ndim = (int32_t)next_integer();
  tensor->shape = allocate((size_t)tensor->ndim, sizeof(int64_t));
  for (int at = 0; at < tensor->ndim; at++)
    tensor->shape[at] = next_integer();
  if (!next_integer())
    return;
  tensor->strides = allocate((size_t)tensor->ndim, sizeof(int64_t));
  for (int at = 0; at < tensor->ndim; at++)
    tensor->strides[at] = next_integer();
}

static void next_value(TVMFFIAny *value);

/* An object as TVM-FFI lays it out: a header, and what it is of behind it. */
static void *next_object(TVMFFIAny *value, int32_t type, size_t size)
{
  TVMFFIObject *object = allocate(1, sizeof(TVMFFIObject) + size);
  object->combined_ref_count = ((uint64_t)1 << 32) + 1;
  object->type_index = type;
  value->type_index = type;
  value->v_obj = object;
  return object + 1;
}

static void next_array(TVMFFIAny *value)
{
  TVMFFISeqCell *cell = next_object(value, kTVMFFIArray, sizeof(TVMFFISeqCell));
  cell->size = cell->capacity = next_integer();
  TVMFFIAny *items = allocate((size_t)cell->size, sizeof(TVMFFIAny));
  cell->data = items;
  for (int64_t at = 0; at < cell->size; at++)
    next_value(&items[at]);
}

static void next_value(TVMFFIAny *value)
{
  char kind[16];
  snprintf(kind, sizeof kind, "%s", next_word());
  value->type_index = kTVMFFINone;
  if (strcmp(kind, "int") == 0 || strcmp(kind, "bool") == 0) {
    value->type_index = kind[0] == 'i' ? kTVMFFIInt : kTVMFFIBool;
    value->v_int64 = next_integer();
  } else if (strcmp(kind, "float") == 0) {
    value->type_index = kTVMFFIFloat;
    value->v_float64 = strtod(next_word(), NULL);
  } else if (strcmp(kind, "str") == 0) {
    value->type_index = kTVMFFIRawStr;
    value->v_c_str = strdup(next_word());
  } else if (strcmp(kind, "pointer") == 0 || strcmp(kind, "address") == 0) {
    value->type_index = kind[0] == 'p' ? kTVMFFIOpaquePtr : kTVMFFIDLTensorPtr;
    value->v_ptr = (void *)(uintptr_t)next_integer();
  } else if (strcmp(kind, "tensor") == 0) {
    value->type_index = kTVMFFIDLTensorPtr;
    value->v_ptr = allocate(1, sizeof(DLTensor));
    next_tensor(value->v_ptr);
  } else if (strcmp(kind, "object") == 0) {
    next_tensor(next_object(value, kTVMFFITensor, sizeof(DLTensor)));
  } else if (strcmp(kind, "array") == 0) {
    next_array(value);
  } else if (strcmp(kind, "none") != 0) {
    fprintf(stderr, "no value is called `%s`\n", kind);
    exit(2);
  }
}

static void next_function(void)
{
  struct function *function = allocate(1, sizeof *function);
  function->name = strdup(next_word());
  function->count = (int)next_integer();
  if (function->count > MOST_PARAMETERS) {
    fprintf(stderr, "%s has more than %d parameters\n", function->name, MOST_PARAMETERS);
    exit(2);
  }
  for (int at = 0; at < function->count; at++)
    function->sizes[at] = (size_t)next_integer();
  function->next = settings.functions;
  settings.functions = function;
}

static struct call next_call(void)
{
  struct call call = {.name = strdup(next_word())};
  settings.device = (int)next_integer();
  call.with_initializer = (int)next_integer();
  call.times = (int)next_integer();
  settings.failing = strdup(next_word());
  settings.failure = (int)next_integer();
  settings.succeeding = (int)next_integer();
  call.count = (int)next_integer();
  call.values = allocate((size_t)call.count, sizeof(TVMFFIAny));
  for (int at = 0; at < call.count; at++)
    next_value(&call.values[at]);
  return call;
}

/* Make a call in this process, and return its exit code. */
static int make(const struct call *call, void *library, TVMFFISafeCallType function, int (*initializer)(void), int byte)
{
  TVMFFIAny result = {.type_index = kTVMFFINone};
  if (call->with_initializer) {
    fill_stack(byte);
    printf("initialized %d\n", initializer());
  }
  for (int at = 0; at < call->times; at++) {
    fill_stack(byte);
    int code = function(NULL, call->values, call->count, &result);
    printf("returned %d result type %d\n", code, result.type_index);
  }
  printf("device %d\n", settings.device);
  dlclose(library);
  fflush(stdout);
  return launches ? HAS_LAUNCHED : 0;
}

/* Make a call, and return whether it has launched something. */
static int make_in_child(const struct call *call, void *library, const char *symbol, int byte)
{
  char name[MOST_LETTERS];
  snprintf(name, sizeof name, "__tvm_ffi_%s", symbol);
  TVMFFISafeCallType function = (TVMFFISafeCallType)(uintptr_t)dlsym(library, name);
  snprintf(name, sizeof name, "%s_init", symbol);
  int (*initializer)(void) = (int (*)(void))(uintptr_t)dlsym(library, name);
  if (!function || !initializer) {
    fprintf(stderr, "%s\n", dlerror());
    exit(2);
  }
  printf("call %s %02x\n", call->name, byte);
  fflush(stdout);
  pid_t child = fork();
  if (child == 0)
    _exit(make(call, library, function, initializer, byte));
  int status = 0;
  if (child < 0 || waitpid(child, &status, 0) != child) {
    perror("a child for a call");
    exit(2);
  }
  if (WIFSIGNALED(status))
    printf("killed by signal %d\n", WTERMSIG(status));
  return WIFEXITED(status) && WEXITSTATUS(status) == HAS_LAUNCHED;
}

int main(int count, char **words)
{
  static char word[MOST_LETTERS];
  const struct rlimit none = {0, 0};
  if (count != 3) {
    fprintf(stderr, "usage: driver BLOB SYMBOL < CALLS\n");
    return 2;
  }
  setlinebuf(stdout);
  setrlimit(RLIMIT_CORE, &none);
  void *library = dlopen(words[1], RTLD_NOW | RTLD_LOCAL);
  if (!library) {
    fprintf(stderr, "%s\n", dlerror());
    return 2;
  }
  while (more(word))
    if (strcmp(word, "function") == 0) {
      next_function();
    } else if (strcmp(word, "call") == 0) {
      struct call call = next_call();
      if (make_in_child(&call, library, words[2], 0xa5))
        make_in_child(&call, library, words[2], 0x5a);
    } else {
      fprintf(stderr, "neither a function nor a call: `%s`\n", word);
      return 2;
    }
  fflush(stdout);
  _exit(0); /* what a blob does at the end, each child has recorded */
}
