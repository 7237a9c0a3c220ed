/* What the files of hypervisor/qemu/ share. */
#ifndef HOSTD_HYPERVISOR_QEMU_PRIVATE_H
#define HOSTD_HYPERVISOR_QEMU_PRIVATE_H

#include "base/buf.h"
#include "base/qmp.h"
#include "hostd/hypervisor/hypervisor.h"

struct hypervisor {
    uv_loop_t *loop;
    char *program;
    char *shim; /* NULL: none */
    uint64_t tcg_cache_mb;
    uint32_t ready_ms;  /* for the first answer of a QEMU's monitor, on a busy machine */
    uint32_t settle_ms; /* for a QEMU to come out of a migration that is cut off */
    struct hypervisor_facts facts;
};

/* Version and machine types, asked of the program itself. */
MUST_CHECK int discover_program(const char *program, struct err *err, struct hypervisor_facts *out);
/* Processors, their features and how many of them a guest may have. What cannot be found out stays empty. Take:
 * discover_cpus_free(). */
void discover_cpus(const char *program, struct hypervisor_facts *out);
void discover_cpus_free(struct hypervisor_facts *facts);
/* Runs a program with `input` on its standard input and gathers what it prints. Only at start, before the loop and any
 * thread runs. */
MUST_CHECK int discover_run(char *const argv[], const char *input, struct err *err, struct buf *out);
/* How the writes of guests started with `shim` can be tracked: the best way, or `wanted` (not "auto") if it is
 * possible. Version and accelerator must be known. */
void discover_tracker(const char *shim, const char *wanted, struct hypervisor_facts *out);

/* guest.c: asks QEMU; takes the arguments. False: it cannot be asked now, and `fn` is not called. `fn` is told
 * ERR_CANCELLED from inside guest_free(), ERR_WRONG_STATE when QEMU refused, and another code when nobody knows. */
bool guest_command(
    struct guest *guest, const char *command, json_t *arguments, uint32_t timeout_ms, qmp_reply_fn fn, void *user);
/* `fn` is called when one of QEMU's jobs has changed, and when the monitor is back after it was lost; NULL: nobody is.
 */
void guest_observe_jobs(struct guest *guest, void (*fn)(void *user), void *user);

#endif
