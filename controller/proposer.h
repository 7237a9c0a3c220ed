/* Brings commands into the replicated log. */
#ifndef CONTROLLER_PROPOSER_H
#define CONTROLLER_PROPOSER_H

#include "proto/state.pb-c.h"
#include "raft/replica.h"

/* `err`: it is not known to be in the log (not the leader, or leadership was lost meanwhile). Else `result`, whose own
 * error says why the state refused it. Both lent. */
typedef void (*proposer_fn)(void *user, const struct err *err, const Drover__CommandResult *result);

/* A command with the time filled in. Take. */
Drover__Command *proposer_command(void);
/* As it goes into the log: stamped with the schema that it needs. Takes the command. */
void proposer_pack(Drover__Command *command, struct buf *out);
/* Takes the command. `fn` is called exactly once, never from inside this call. */
void proposer_submit(struct replica *replica, Drover__Command *command, proposer_fn fn, void *user);

#endif
