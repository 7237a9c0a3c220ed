/* Which version of the schema a command needs. A member that is too old for a command stops when it meets it, because
 * it could only go on differently from the others; so a command is stamped with the lowest version whose programs all
 * apply it alike, and members of several versions live together for as long as nobody asks for what the oldest cannot
 * do.
 *
 * What is only stored and handed back (fields of definitions, facts and jobs) needs no version: a message keeps the
 * fields that a program does not know. A change, or a field that applying a command goes by, does: it raises
 * STATE_SCHEMA, and what it needs is said in version.c. How a change is applied never changes: another way of doing it
 * is another change. Pure. */
#ifndef CONTROLLER_STATE_VERSION_H
#define CONTROLLER_STATE_VERSION_H

#include "proto/state.pb-c.h"

#define VERSION_DISKS       3u /* disks that move to other files */
#define VERSION_MAINTENANCE 3u /* hosts that get no VMs */

/* What this program does not know needs a later version than its own. */
uint32_t version_of_command(const Drover__Command *command);
/* Of what the job may still bring into the log, under whichever leader. */
uint32_t version_of_job(Drover__JobKind kind, const Drover__JobData *data);

#endif
