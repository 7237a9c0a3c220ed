/* A kick: "run this function soon, not now". However often it is armed before, the function runs once, on one of the
 * loop's next rounds, and the loop does not block until then. It is how callbacks stay out of the calls that caused
 * them. */
#ifndef RAFT_KICK_H
#define RAFT_KICK_H

#include <uv.h>

struct kick;

struct kick *kick_new(uv_loop_t *loop, void (*fn)(void *user), void *user);
void kick_arm(struct kick *kick);
/* The function will not run any more. NULL is fine; allowed inside the function. */
void kick_free(struct kick *kick);

#endif
