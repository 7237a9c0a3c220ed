#include "controller/auth/auth.h"

#include <stdlib.h>
#include <string.h>

static bool principal_set(struct principal *out, enum principal_kind kind, const char *name)
{
    out->kind = kind;
    snprintf(out->name, sizeof out->name, "%s", name);
    return true;
}

static bool founder_lookup(const struct auth *auth, const uint8_t key[KEY_BYTES], struct principal *out)
{
    for (size_t i = 0; i < auth->options->member_count; i++)
        if (memcmp(auth->options->members[i].public_key, key, KEY_BYTES) == 0)
            return principal_set(out, PRINCIPAL_CONTROLLER, auth->options->members[i].name);
    struct replica_member members[OPTIONS_MEMBERS_MAX];
    size_t count = *auth->replica ? replica_members(*auth->replica, members, OPTIONS_MEMBERS_MAX) : 0;
    for (size_t i = 0; i < count && i < OPTIONS_MEMBERS_MAX; i++)
        if (memcmp(members[i].public_key, key, KEY_BYTES) == 0)
            return principal_set(out, PRINCIPAL_CONTROLLER, members[i].name);
    return false;
}

bool auth_lookup(void *user, const uint8_t public_key[KEY_BYTES], struct principal *out)
{
    const struct auth *auth = user;
    if (state_principal(auth->state, public_key, out))
        return true;
    for (size_t i = 0; i < auth->options->admin_count; i++)
        if (memcmp(auth->options->admins[i].public_key, public_key, KEY_BYTES) == 0)
            return principal_set(out, PRINCIPAL_USER, auth->options->admins[i].name);
    return !state_has_members(auth->state) && founder_lookup(auth, public_key, out);
}
