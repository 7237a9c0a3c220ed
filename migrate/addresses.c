#include "migrate/addresses.h"

#include <string.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "base/log.h"

#define FILE_BYTES_MAX (NEIGHBOURS_MAX * NEIGHBOUR_TEXT_MAX)

static void addresses_add(struct addresses *to, const struct neighbour *neighbour)
{
    if (to->count == NEIGHBOURS_MAX)
        return;
    size_t i = to->count++;
    to->list[i] = *neighbour;
    neighbour_print(neighbour, to->text[i]);
    to->lines[i] = to->text[i];
}

void addresses_load(const char *file, struct addresses *out)
{
    cleanup_buf struct buf text = {0};
    struct neighbour neighbour;
    struct err err;
    out->count = 0;
    if (!file[0])
        return;
    if (file_read(file, FILE_BYTES_MAX, &err, &text) < 0) {
        if (err.code != ERR_NOT_FOUND)
            log_event(LOG_WARN, "addresses.unread", "message=%s", LOG_QUOTE(err.message));
        return;
    }
    for (const char *at = buf_str(&text); *at;) {
        size_t len = strcspn(at, "\n");
        if (neighbour_parse(at, len, &err, &neighbour) == 0)
            addresses_add(out, &neighbour);
        at += len + (at[len] == '\n');
    }
}

static bool one_of(const uint8_t mac[static 6], const char *macs)
{
    for (const char *at = macs; *at;) {
        char text[18] = "";
        uint8_t own[6];
        size_t len = strcspn(at, "\n");
        if (len < sizeof text)
            memcpy(text, at, len);
        if (neighbour_parse_mac(text, own) && memcmp(own, mac, sizeof own) == 0)
            return true;
        at += len + (at[len] == '\n');
    }
    return false;
}

void addresses_take(char *const *lines, size_t count, const char *macs, struct addresses *out)
{
    struct neighbour neighbour;
    struct err err;
    out->count = 0;
    for (size_t i = 0; i < count && i < NEIGHBOURS_MAX; i++)
        if (neighbour_parse(lines[i], strlen(lines[i]), &err, &neighbour) == 0 && one_of(neighbour.mac, macs))
            addresses_add(out, &neighbour);
        else
            log_event(LOG_WARN, "address.refused", "number=%zu", i);
}

int addresses_save(const struct addresses *addresses, const char *file, struct err *err)
{
    cleanup_buf struct buf text = {0};
    for (size_t i = 0; i < addresses->count; i++)
        buf_printf(&text, "%s\n", addresses->text[i]);
    return file_write(file, buf_str(&text), text.len, 0600, err);
}
