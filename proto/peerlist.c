#include "proto/peerlist.h"

#include <stdio.h>
#include <string.h>

#include "base/address.h"

#define LINE_MAX_BYTES 255

static int line_parse(const char *line, size_t len, struct err *err, struct peerlist_entry *out)
{
    struct peerlist_entry entry = {0};
    struct address address;
    char text[LINE_MAX_BYTES + 1], key[KEY_TEXT + 1], where[WIRE_ADDRESS_MAX], rest;
    snprintf(text, sizeof text, "%.*s", (int)(len < sizeof text ? len : sizeof text - 1), line);
    if (len > LINE_MAX_BYTES || sscanf(text, "%41s %127s %c", key, where, &rest) != 2)
        return err_set(err, ERR_INVALID, "'%.80s' is not of the form KEY tcp://IP:PORT", text);
    if (address_parse(where, err, &address) < 0)
        return -1;
    if (address.port == 0)
        return err_set(err, ERR_INVALID, "'%s' has no port that could be asked", where);
    if (key_parse(key, err, entry.key) < 0)
        return err_wrap(err, "%s", where);
    snprintf(entry.address, sizeof entry.address, "%s", where);
    *out = entry;
    return 0;
}

int peerlist_parse(const char *lines, size_t max, struct err *err, struct peerlist_entry *out, size_t *count)
{
    size_t found = 0;
    for (const char *line = lines; *line;) {
        size_t len = strcspn(line, "\n");
        if (found == max)
            return err_set(err, ERR_INVALID, "more than %zu are named", max);
        if (line_parse(line, len, err, &out[found]) < 0)
            return -1;
        found++;
        line += len + (line[len] == '\n');
    }
    if (found == 0)
        return err_set(err, ERR_INVALID, "none is named");
    *count = found;
    return 0;
}
