/* The session with the controllers. hostd is connected to all of them; one, the leader, holds the session:
 *
 *     SEARCHING --hello answered--> UP --heartbeat fails, connection lost, say_hello--> SEARCHING
 *
 * Searching says hello to every connected controller, again and again: whoever leads answers with a lease, the others
 * say who leads. Heartbeats renew the lease and carry reports of all partitions; a change makes the next one come at
 * once. The lease counts from when the request was sent (CLOCK_BOOTTIME). Outcomes of migrations are told until they
 * are taken note of. Single-threaded. */
#ifndef HOSTD_AGENT_H
#define HOSTD_AGENT_H

#include "hostd/options.h"
#include "hostd/partition/partition.h"
#include "hostd/stats.h"
#include "hostd/visits.h"

struct agent;

struct agent_options {
    uv_loop_t *loop;
    struct wire *wire;
    const struct peerlist_entry *controllers;
    size_t controller_count;
    const Drover__HostFacts *facts; /* lent */
    bool stand_in;                  /* this machine takes the place of the one that had its key */
    struct partitions *partitions;
    struct outcomes *outcomes;
    struct visits *visits;
    struct stats *stats;
    wire_handler_fn handler; /* of the controllers' requests */
    void *handler_user;
};

/* Take: agent_close(). */
MUST_CHECK int agent_open(const struct agent_options *options, struct err *err, struct agent **out);
void agent_close(struct agent *agent);
/* Something changed that the controllers should hear of soon. */
void agent_poke(struct agent *agent);
/* How long the lease still holds; 0: there is none. */
uint64_t agent_lease_left_ms(const struct agent *agent, uint64_t now_ms);
bool agent_up(const struct agent *agent);

#endif
