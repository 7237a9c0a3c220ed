/* Requests that act, each named by its key (ledger.h): asked for again while it is under way, the second asker
 * waits with the first; asked for again when it is over, it is answered from the ledger. An action ends exactly once,
 * by action_done() or action_fail(), and is freed by that. Single-threaded. */
#ifndef HOSTD_ACTION_H
#define HOSTD_ACTION_H

#include "hostd/ledger.h"
#include "proto/host.pb-c.h"
#include "proto/wire.h"

struct actions;

struct action {
    struct action *prev, *next; /* all under way */
    struct action *also;        /* for its holder: a list of its own */
    struct actions *all;
    struct ledger_key key;
    struct wire_request **requests;
    size_t request_count;
};

/* Lends the ledger. Take: actions_close(). */
struct actions *actions_open(struct ledger *ledger);
/* What is under way is answered with ERR_UNAVAILABLE, and not remembered. */
void actions_close(struct actions *actions);

/* NULL: the request was answered from memory, or waits with the same action. Takes the request. `key` may be NULL. */
struct action *action_begin(
    struct actions *actions, uint32_t method, const Drover__ActionKey *key, struct wire_request *request);
/* `text` is what the reply says: the address of MIGRATE_PREPARE, the detail of PARTITION_STOP and
 * STORAGE_FINISH. */
void action_done(struct action *action, const char *text);
/* An error that a retry may mend is not remembered. */
void action_fail(struct action *action, const struct err *err);

#endif
