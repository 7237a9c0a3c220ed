#include "base/cpulist.h"

#include <ctype.h>
#include <stdlib.h>

#include "base/buf.h"

/* A number at `*text`, which is moved behind it. */
static bool take_core(const char **text, unsigned long *out)
{
    char *end;
    if (!isdigit((unsigned char)**text)) /* strtoul() would take spaces and signs */
        return false;
    *out = strtoul(*text, &end, 10);
    *text = end;
    return *out < CPU_SETSIZE;
}

int cpulist_parse(const char *text, struct err *err, cpu_set_t *out)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    for (const char *at = text; *at;) {
        unsigned long first, last;
        if (!take_core(&at, &first))
            return err_set(err, ERR_INVALID, "'%.64s' is not a list of cores such as 0,2-3", text);
        last = first;
        if (*at == '-' && (at++, !take_core(&at, &last) || last < first))
            return err_set(err, ERR_INVALID, "'%.64s' is not a list of cores such as 0,2-3", text);
        if (*at && (*at++ != ',' || !*at))
            return err_set(err, ERR_INVALID, "'%.64s' is not a list of cores such as 0,2-3", text);
        for (unsigned long core = first; core <= last; core++)
            CPU_SET(core, &set);
    }
    *out = set;
    return 0;
}

char *cpulist_format(const cpu_set_t *set)
{
    struct buf text = {0};
    for (unsigned first = 0, last; first < CPU_SETSIZE; first = last + 1) {
        last = first;
        if (!CPU_ISSET(first, set))
            continue;
        while (last + 1 < CPU_SETSIZE && CPU_ISSET(last + 1, set))
            last++;
        buf_printf(&text, last > first ? "%s%u-%u" : "%s%u", text.len ? "," : "", first, last);
    }
    buf_append(&text, "", 1);
    return (char *)text.data;
}
