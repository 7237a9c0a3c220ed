/* guest: what the engine asks of QEMU, over the QMP connection that is its own. Each function runs a short sequence of
 * commands and calls `fn` once at its end: `err` NULL when all went well. One sequence at a time, but for
 * guest_resume(), which ends what is under way. Callbacks come on the loop's thread, never from inside the call. */
#ifndef MIGRATE_GUEST_H
#define MIGRATE_GUEST_H

#include <jansson.h>
#include <uv.h>

#include "base/err.h"

struct guest;
typedef void (*guest_fn)(void *user, const struct err *err);

struct guest_events {
    /* `at_ns`: since when, by clock_now_ns(). */
    void (*on_stopped)(void *user, uint64_t at_ns);       /* the guest stands still */
    void (*on_resumed)(void *user, uint64_t at_ns);       /* the guest runs; before guest_start() is answered */
    void (*on_migration)(void *user, const char *status); /* QEMU's migration status changed (lent) */
    void (*on_pass)(void *user, uint64_t pass);           /* QEMU has begun to go through RAM for this time */
    void (*on_gone)(void *user, const struct err *err);   /* QEMU went away */
    /* A block job's event (lent); NULL: not of interest. */
    void (*on_block_job)(void *user, const char *event, json_t *data);
    void *user;
};

/* Take: guest_close(). */
MUST_CHECK int guest_open(
    uv_loop_t *loop, const char *qmp_path, const struct guest_events *events, struct err *err, struct guest **out);
void guest_close(struct guest *guest); /* NULL is fine */

/* For sequences of others beside ours. Lent. */
struct qmp *guest_qmp(struct guest *guest);

/* Source: refuses devices whose writes nobody can see (by name), checks that the guest runs, and sets QEMU's migration
 * up so that it carries device state only. */
void guest_prepare_source(struct guest *guest, guest_fn fn, void *user);
/* The same for a migration of QEMU's own, RAM included. Refuses versions of QEMU that lose writes under TCG. */
void guest_prepare_source_whole(struct guest *guest, uint64_t max_downtime_ms, guest_fn fn, void *user);
/* What QEMU says of its migration of RAM, since it began. */
struct guest_ram {
    uint64_t pages, zero_pages; /* sent; those of them that were zero */
    uint64_t remaining_bytes, dirty_pages_per_s;
};
/* `ram` (lent) is NULL when QEMU does not say. */
void guest_query_ram(struct guest *guest, void (*fn)(void *user, const struct guest_ram *ram), void *user);
/* Files of the guest's writable disks, known after guest_prepare_source(). Lent; returns how many (at most
 * GUEST_DISKS_MAX). */
#define GUEST_DISKS_MAX 32
size_t guest_disks(const struct guest *guest, const char *const **out);
/* Known after guest_prepare_source(). Does a disk of the guest write its memory by direct I/O, which the tracker does
 * not see? Has it a device that frees memory, i.e. a balloon? */
bool guest_reads_directly(const struct guest *guest);
bool guest_frees_memory(const struct guest *guest);
/* Source: calls `fn` when all disk requests that were under way are done. The guest runs on, and makes new ones. */
void guest_drain(struct guest *guest, guest_fn fn, void *user);
/* Source: learns the vCPUs' threads. */
void guest_find_vcpus(struct guest *guest, guest_fn fn, void *user);
/* Lent; returns how many (at most GUEST_VCPUS_MAX). */
#define GUEST_VCPUS_MAX 512
size_t guest_vcpus(const struct guest *guest, const pid_t **out);
/* Source: starts QEMU's migration to the UNIX socket `path`; on_stopped follows, then, once the disks are drained,
 * on_migration("pre-switchover"), and QEMU waits. Without `wait`, where QEMU can do that (10.0), it goes on instead,
 * and on_migration("device") says so. Waiting costs a round trip, and 1 ms that QEMU sleeps before it. */
void guest_migrate(struct guest *guest, const char *path, bool wait, guest_fn fn, void *user);
/* Has all been heard that QEMU has said up to now? It tells of each step before it writes what follows to the socket.
 */
bool guest_heard(const struct guest *guest);
/* Source, in pre-switchover: lets QEMU send the device state; on_migration("completed") follows. */
void guest_switch(struct guest *guest, guest_fn fn, void *user);
/* Source: whatever state QEMU's migration is in, ends it and has the guest run. */
void guest_resume(struct guest *guest, guest_fn fn, void *user);

/* Known after guest_prepare_destination(). Does QEMU emulate the guest's processor, i.e. not use KVM? */
bool guest_emulated(const struct guest *guest);
/* Destination: has QEMU listen for device state at `path`, or (`whole`) for RAM and devices; on_migration("completed")
 * follows once it has loaded it. */
void guest_prepare_destination(struct guest *guest, const char *path, bool whole, guest_fn fn, void *user);
/* Destination: runs the guest. on_resumed comes before a guest executes. ERR_WRONG_STATE: QEMU refuses. */
void guest_start(struct guest *guest, guest_fn fn, void *user);
/* Destination: does the guest stand as QEMU has loaded it, paused? */
void guest_look_paused(struct guest *guest, guest_fn fn, void *user);
/* Source: has QEMU tell the network that the guest is there. Nobody waits for it. */
void guest_announce(struct guest *guest);

#endif
