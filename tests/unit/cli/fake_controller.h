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
    FAKE_UNAVAILABLE,    /* answers "unavailable" */
    FAKE_REFUSES,        /* answers "busy" */
    FAKE_GARBLED,        /* answers what cannot be read */
};

struct fake_log {
    uint64_t jobs; /* made so far; their ids are 1 to jobs */
};

struct fake;
/* Starts it on a port of its own. */
struct fake *fake_start(struct fake_log *log, const uint8_t client_key[KEY_BYTES]);
void fake_set(struct fake *fake, enum fake_mode mode, struct fake *leader);
/* For the client's configuration. */
void fake_describe(const struct fake *fake, struct context_controller *out);
unsigned fake_requests(const struct fake *fake);
/* Stops it: its connections break. */
void fake_stop(struct fake *fake);

#endif
