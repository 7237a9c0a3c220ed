#include "raft/member.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "base/address.h"
#include "base/ensure.h"

#define KEY_CHARS (KEY_TEXT - 1)

raft_id member_id(const char *name)
{
    raft_id id = raft_digest(name, 0) & INT64_MAX;
    return id ? id : 1;
}

static int check_name(const char *name, struct err *err)
{
    size_t len = strnlen(name, WIRE_PRINCIPAL_MAX);
    if (len == 0 || len == WIRE_PRINCIPAL_MAX)
        return err_set(err, ERR_INVALID, "a member's name must have 1 to %d characters", WIRE_PRINCIPAL_MAX - 1);
    for (size_t i = 0; i < len; i++)
        if (!isgraph((unsigned char)name[i]) || name[i] == '|')
            return err_set(err, ERR_INVALID, "a member's name may have printable characters only, without '|'");
    return 0;
}

/* On success the port is 1 to 65534, because the port after it is used too. */
static int parse_address(const char *text, struct err *err, struct address *out)
{
    struct address address;
    if (address_parse(text, err, &address) < 0)
        return -1;
    if (address.port == 0 || address.port == UINT16_MAX)
        return err_set(err, ERR_INVALID, "the port of %s must be between 1 and %d", text, UINT16_MAX - 1);
    *out = address;
    return 0;
}

int member_format(const struct replica_member *member, struct err *err, char out[static MEMBER_TEXT_MAX])
{
    char key[KEY_TEXT];
    struct address address;
    if (check_name(member->name, err) || parse_address(member->address, err, &address))
        return -1;
    key_format(member->public_key, key);
    snprintf(out, MEMBER_TEXT_MAX, "%s|%s|%s", member->name, member->address, key);
    return 0;
}

void member_name(const char *text, char *out)
{
    size_t len = strcspn(text, "|");
    if (len >= WIRE_PRINCIPAL_MAX)
        len = 0;
    memcpy(out, text, len);
    out[len] = '\0';
}

int member_parse(const char *text, struct err *err, struct replica_member *out)
{
    struct replica_member parsed = {.role = out->role};
    struct address address;
    const char *first = strchr(text, '|');
    const char *second = first ? strchr(first + 1, '|') : NULL;
    if (!second || strlen(second + 1) != KEY_CHARS || second - first - 1 >= WIRE_ADDRESS_MAX)
        return err_set(err, ERR_INVALID, "a member's text must look like NAME|ADDRESS|KEY");
    member_name(text, parsed.name);
    memcpy(parsed.address, first + 1, (size_t)(second - first - 1));
    if (check_name(parsed.name, err) || parse_address(parsed.address, err, &address) ||
        key_parse(second + 1, err, parsed.public_key))
        return -1;
    *out = parsed;
    return 0;
}

bool member_same_address(const char *one, const char *other)
{
    struct err err;
    struct address a, b;
    return address_parse(one, &err, &a) == 0 && address_parse(other, &err, &b) == 0 && address_equal(&a, &b);
}

int member_check_all(const struct replica_member *members, size_t count, struct err *err)
{
    char text[MEMBER_TEXT_MAX];
    if (count == 0 || count > MEMBERS_MAX)
        return err_set(err, ERR_INVALID, "a cluster has 1 to %d members, not %zu", MEMBERS_MAX, count);
    for (size_t i = 0; i < count; i++) {
        if (member_format(&members[i], err, text))
            return -1;
        for (size_t j = 0; j < i; j++) {
            if (strcmp(members[i].name, members[j].name) == 0 ||
                member_same_address(members[i].address, members[j].address))
                return err_set(err, ERR_INVALID, "the members %s and %s must differ in name and address",
                    members[j].name, members[i].name);
            if (member_id(members[i].name) == member_id(members[j].name))
                return err_set(err, ERR_INVALID, "the names %s and %s have the same raft id: choose another name",
                    members[j].name, members[i].name);
        }
    }
    return 0;
}

int member_snapshot_address(const char *address, struct err *err, char *out)
{
    struct address parsed;
    if (parse_address(address, err, &parsed))
        return -1;
    parsed.port++;
    address_print(&parsed, out);
    return 0;
}

int member_role_to_raft(enum replica_role role)
{
    switch (role) {
    case REPLICA_SPARE:
        return RAFT_SPARE;
    case REPLICA_STANDBY:
        return RAFT_STANDBY;
    case REPLICA_VOTER:
        return RAFT_VOTER;
    }
    ENSURE(!"a role");
    return RAFT_SPARE;
}

enum replica_role member_role_from_raft(int role)
{
    switch (role) {
    case RAFT_VOTER:
        return REPLICA_VOTER;
    case RAFT_STANDBY:
        return REPLICA_STANDBY;
    default:
        return REPLICA_SPARE;
    }
}
