/* A controller for tests: a thread with a loop and a wire server that answers as it is told. It keeps a list of jobs
 * that all fake controllers of a test share, as the log would. */
#ifndef TESTS_UNIT_CLI_FAKE_CONTROLLER_H
#define TESTS_UNIT_CLI_FAKE_CONTROLLER_H

#include "cli/connect.h"

enum fake_mode {
    FAKE_LEADS,
    FAKE_FOLLOWS,        /* not-leader, naming `leader` (NULL: nobody) */
    FAKE_SILENT,         /* takes requests and never answers */
    FAKE_TAKES_AND_DIES, /* does what it is asked once, then behaves as FAKE_FOLLOWS without having answered */
    FAKE_LOSES_AND_DIES, /* likewise, but it is another client's request for the same that it has done */
    FAKE_CLOSES,         /* does what it is asked once, answers "cancelled", then behaves as FAKE_FOLLOWS */
    FAKE_UNAVAILABLE,    /* answers "unavailable" */
    FAKE_REFUSES,        /* answers "busy" */
    FAKE_GARBLED,        /* answers what cannot be read */
};

#define FAKE_REQUESTS_MAX 8

/* A request that names an id makes one job, however often it is asked. */
struct fake_log {
    uint64_t jobs; /* made so far; their ids are 1 to jobs */
    struct {
        char id[64];
        uint64_t job;
    } requests[FAKE_REQUESTS_MAX];
    size_t request_count;
};

struct fake;
/* Starts it on a port of its own. */
struct fake *fake_start(struct fake_log *log, const uint8_t client_key[KEY_BYTES]);
void fake_set(struct fake *fake, enum fake_mode mode, struct fake *leader);
/* For the client's configuration. */
void fake_describe(const struct fake *fake, struct peerlist_entry *out);
unsigned fake_requests(const struct fake *fake);
/* Stops it: its connections break. */
void fake_stop(struct fake *fake);

#endif
