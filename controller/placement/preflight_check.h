/* Private to placement/: what the checks of a preflight say it with. */
#ifndef CONTROLLER_PLACEMENT_PREFLIGHT_CHECK_H
#define CONTROLLER_PLACEMENT_PREFLIGHT_CHECK_H

#include "controller/placement/preflight.h"

/* The finding under construction belongs to the check that runs. */
struct preflight_run {
    const struct preflight_input *in;
    const char *code;
    enum err_code refusal;
    struct preflight *out;
};

struct preflight_check {
    const char *code;
    void (*run)(struct preflight_run *run);
    enum err_code refusal;
};
/* preflight_looks.c: those that go by what a host saw when it looked. Ended by run = NULL. */
extern const struct preflight_check preflight_looks[];

/* A new finding of the check that runs; the preflight owns it. */
Drover__Finding *preflight_refuse(struct preflight_run *run);
Drover__Finding *preflight_warn(struct preflight_run *run);
/* Fills in a field of it. */
void preflight_say(char **field, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
