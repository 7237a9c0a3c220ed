/* A destination's functions behind a connection of their own, for a source that the test plays. Where a QEMU must be
 * there, it is a socket that never answers, or whoever the test has accept there. */
#ifndef TESTS_MIGRATE_DESTINATION_FIXTURE_H
#define TESTS_MIGRATE_DESTINATION_FIXTURE_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/loop.h"
#include "migrate/destination_private.h"

#define WAIT_MS 60000u

struct fixture {
    struct destination d;
    struct options options;
    struct wire_client *client;
    struct loop_timer *bound;
    char directory[32], record[64], qmp[64], control[64];
    int listener;   /* where QEMU would be */
    pthread_t qemu; /* one of cardboard, while `qemu_runs` */
    bool qemu_runs;
    atomic_uint conts;  /* asked of it */
    unsigned refusals;  /* of so many of them */
    const char *status; /* of its guest, when it is asked */
    /* With its first refusal: it says that the guest runs; the disk is full; what was prepared is gone. */
    bool starts, full, robbed;
    bool answered, late, refused;
    enum err_code code; /* of the answer */
};

extern char mine[], anothers[]; /* migrations */
extern char none[];

int fixture_setup(void **state);
int fixture_teardown(void **state);
/* Asks the destination, without waiting for the answer: `answered`, and what it says, or `late`. */
void fixture_ask(struct fixture *f, uint32_t method, const ProtobufCMessage *message);
/* The same, and waits. */
void fixture_call(struct fixture *f, uint32_t method, const ProtobufCMessage *message);
/* A socket where QEMU would be; its monitor. */
void fixture_qemu_listen(struct fixture *f);
void fixture_qemu_open(struct fixture *f);

#endif
