/* A VM, two hosts and what each of them sees, in which a preflight finds nothing. A test changes one thing. */
#ifndef TESTS_CONTROLLER_PREFLIGHT_WORLD_H
#define TESTS_CONTROLLER_PREFLIGHT_WORLD_H

#include "controller/placement/preflight.h"

#define GIB (1ull << 30)

struct world {
    Drover__VmSpec *spec;
    Drover__HostFacts *from, *to;
    Drover__MigrateCheckReply *from_sees, *to_sees;
    struct preflight_input in;
};

/* Everything in it may be replaced by what pb_free() frees. world_free() it. */
struct world world(void);
void world_free(struct world *w);
/* Appends a copy of the word to a list of a message. */
void world_word_add(char ***list, size_t *count, const char *text);
void world_feature_add(Drover__HostFacts *f, const char *name);

#endif
