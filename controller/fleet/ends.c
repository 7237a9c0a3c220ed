#include "controller/fleet/ends.h"

#include <stdio.h>
#include <string.h>

const struct end *ends_find(const struct ends *ends, const char *vm_id)
{
    for (size_t i = 0; i < ENDS_MAX; i++)
        if (ends->list[i].vm_id[0] && strcmp(ends->list[i].vm_id, vm_id) == 0)
            return &ends->list[i];
    return NULL;
}

void ends_note(struct ends *ends, const char *vm_id, const char *host, const char *why, int64_t at_ms)
{
    const struct end *old = ends_find(ends, vm_id);
    size_t at = old ? (size_t)(old - ends->list) : ends->next;
    struct end *end = &ends->list[at];
    if (!old)
        ends->next = (ends->next + 1) % ENDS_MAX;
    *end = (struct end){.at_ms = at_ms};
    snprintf(end->vm_id, sizeof end->vm_id, "%s", vm_id);
    snprintf(end->host, sizeof end->host, "%s", host);
    snprintf(end->why, sizeof end->why, "%s", why);
}
