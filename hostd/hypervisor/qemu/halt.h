/* A guest that QEMU has stopped because its storage failed (run state io-error; a full file system, by QEMU's
 * defaults). The guest is whole: QEMU repeats the requests that failed as soon as it is told to go on.
 *
 *   BLOCK_IO_ERROR, STOP -> query-status -> query-block -> told(why) -> halt_continue() -> a moment later: how is it?
 *
 * When to have it go on is decided above. Callbacks come from the loop. */
#ifndef HOSTD_HYPERVISOR_QEMU_HALT_H
#define HOSTD_HYPERVISOR_QEMU_HALT_H

#include <jansson.h>
#include <uv.h>

#include "hostd/hypervisor/hypervisor.h"

#define HALT_WHY_MAX 256

struct halt;

/* `why` NULL: it runs again. The same may be told several times. */
typedef void (*halt_fn)(void *user, const char *why);
/* Take: halt_free(), once the guest's monitor is closed. */
struct halt *halt_new(uv_loop_t *loop, struct guest *guest, halt_fn fn, void *user);
void halt_free(struct halt *halt);

/* An event of QEMU's. */
void halt_event(struct halt *halt, const char *event, json_t *data);
/* What query-status said, whoever asked. */
void halt_status(struct halt *halt, json_t *status);
/* Has a guest that stands still for this reason, and no other, go on. */
void halt_continue(struct halt *halt);
/* The process is gone. */
void halt_stop(struct halt *halt);

/* Pure: what query-block says of the disks that failed, in words for people. */
void halt_words(json_t *blocks, char out[static HALT_WHY_MAX]);

#endif
