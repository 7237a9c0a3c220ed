/* The life of a partition, as a table over enum PartitionState of types.proto. Pure.
 *
 *            .-> STARTING -.          .-> OUTGOING -> IN_DOUBT
 *     NONE --|             +-> RUNNING|<-----'           |  \
 *            '-> INCOMING -'     |    '<-----------------'   \
 *                  |             |                            |
 *                  '--------> STOPPING -> NONE <--------------'      and, when QEMU ends by itself:
 *                                                 any of them -> STOPPED or FAILED -> NONE
 *
 * | state    | what may be trusted                                                                       |
 * |----------|-------------------------------------------------------------------------------------------|
 * | STARTING | the record exists; QEMU may be on its way                                                  |
 * | RUNNING  | QEMU runs the guest under the record's generation                                          |
 * | INCOMING | QEMU waits for a migration; the guest has not run here, unless the engine's record says so |
 * | OUTGOING | as RUNNING, and an engine is, or was, at work: its record says whether it is handed over   |
 * | IN_DOUBT | the guest is stopped, and stays so until MIGRATE_RESOLVE                                   |
 * | STOPPING | its end is decided: after a restart it is ended at once                                    |
 * | STOPPED, FAILED | nothing is left but the record, until the controller has heard                      | */
#ifndef HOSTD_PARTITION_STATE_H
#define HOSTD_PARTITION_STATE_H

#include <stdbool.h>

#include "proto/types.pb-c.h"

enum partition_state {
    STATE_NONE = DROVER__PARTITION_STATE__PARTITION_NONE,
    STATE_STARTING = DROVER__PARTITION_STATE__PARTITION_STARTING,
    STATE_RUNNING = DROVER__PARTITION_STATE__PARTITION_RUNNING,
    STATE_INCOMING = DROVER__PARTITION_STATE__PARTITION_INCOMING,
    STATE_OUTGOING = DROVER__PARTITION_STATE__PARTITION_OUTGOING,
    STATE_IN_DOUBT = DROVER__PARTITION_STATE__PARTITION_IN_DOUBT,
    STATE_STOPPING = DROVER__PARTITION_STATE__PARTITION_STOPPING,
    STATE_STOPPED = DROVER__PARTITION_STATE__PARTITION_STOPPED,
    STATE_FAILED = DROVER__PARTITION_STATE__PARTITION_FAILED,
};
#define STATE_COUNT 9

bool state_may_follow(enum partition_state from, enum partition_state to);
/* "running"; lent for ever. */
const char *state_name(enum partition_state state);
/* -1 when there is no such name. */
int state_parse(const char *name);
/* True while a QEMU process may belong to a partition in this state. */
bool state_has_guest(enum partition_state state);

#endif
