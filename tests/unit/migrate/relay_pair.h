/* Two relays with somebody in QEMU's place at the far end: an echo, or an NBD server. */
#ifndef TESTS_MIGRATE_RELAY_PAIR_H
#define TESTS_MIGRATE_RELAY_PAIR_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <uv.h>

#include "migrate/relay.h"

enum pair_far { FAR_ECHO, FAR_NBD };

struct pair {
    uv_loop_t loop;
    bool alone; /* when one is lost, QEMU is answered all the same */
    unsigned lost;
    struct err err; /* why */
    struct relay *source, *destination;
    int listener;
    pthread_t echo;
};

/* How many have connected to the far end. */
extern atomic_uint pair_accepted;

/* Nothing is lost for being slow, until pair_patience() says otherwise. Without `same_key` each has another key. */
void pair_open(struct pair *p, enum pair_far far, bool same_key);
/* From now on what the far end does not take for so long is lost. */
void pair_patience(struct pair *p, uint32_t data_ms, uint32_t range_ms);
void pair_close(struct pair *p);
/* The far end takes nothing more, or again. */
void pair_far_hangs(bool now);
/* Connects to the near end. Take: close(2). */
int pair_connect(void);
/* Runs the relays until something can be read from `fd`, its end included. */
void pair_run_until_readable(struct pair *p, int fd);

#endif
