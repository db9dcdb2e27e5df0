/* A stand-in for the run time of a kernel's host code: it has no GPU, and prints what is asked of it. */
#ifndef RUN_TIME_H
#define RUN_TIME_H

#include <stddef.h>

enum { MOST_PARAMETERS = 256 };

/* The sizes of a GPU function's parameters, which a launch does not tell. */
struct function {
  char *name;
  int count;
  size_t sizes[MOST_PARAMETERS];
  struct function *next;
};

/* What a call is made under. */
struct settings {
  struct function *functions;
  int device;          /* the one that is current before the call */
  const char *failing; /* the function of the run time that fails, */
  int failure;         /* with this error, */
  int succeeding;      /* after it has succeeded so often */
};

extern struct settings settings;

/* How many kernels have been launched in this process. */
extern int launches;

/* Print text in one line. */
void print_text(const char *text);

/* Fill what lies below on the stack with a byte, so that what nobody writes is known by it. */
void fill_stack(int byte);

#endif
