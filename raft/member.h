/* Members of the log: their raft ids, and the address text that libraft's configuration carries for each of them.
 *
 * The text is "NAME|tcp://IP:PORT|KEY" (the key as 40 characters of Z85, which has no '|'), so that whoever holds the
 * log's configuration can reach every member and knows the key it must prove. Texts come from the log and from peers:
 * parsing checks everything. */
#ifndef RAFT_MEMBER_H
#define RAFT_MEMBER_H

#include <raft.h>

#include "base/err.h"
#include "raft/replica.h"

#define MEMBER_TEXT_MAX (WIRE_PRINCIPAL_MAX + WIRE_ADDRESS_MAX + KEY_TEXT + 2)
#define MEMBERS_MAX     16

/* The raft id of a name: 63 bits of a hash, never 0. Two names of one cluster must not share an id: member_check_all().
 */
raft_id member_id(const char *name);

/* Writes the text of a member into `out`; an error names the field that does not fit the format. */
MUST_CHECK int member_format(const struct replica_member *member, struct err *err, char out[static MEMBER_TEXT_MAX]);
/* Reads name, address and key; the role is left as it is. */
MUST_CHECK int member_parse(const char *text, struct err *err, struct replica_member *out);
/* Only the name; "" when the text has none. `out` has WIRE_PRINCIPAL_MAX bytes. */
void member_name(const char *text, char *out);

/* Two well-formed addresses name the same place, however they are written. */
bool member_same_address(const char *one, const char *other);

/* Checks a list: 1 to MEMBERS_MAX members, every one well-formed, no name, address or id twice. */
MUST_CHECK int member_check_all(const struct replica_member *members, size_t count, struct err *err);

/* The address of the snapshot server that belongs to `address`: the port after it. `out` has WIRE_ADDRESS_MAX bytes. */
MUST_CHECK int member_snapshot_address(const char *address, struct err *err, char *out);

/* libraft numbers roles in its own way. */
int member_role_to_raft(enum replica_role role);
enum replica_role member_role_from_raft(int role);

#endif
