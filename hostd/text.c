#include "hostd/text.h"

#include <ctype.h>
#include <stdarg.h>

const char *text_print(char *out, size_t size, const char *text)
{
    size_t i = 0;
    for (; i + 1 < size && text[i]; i++)
        out[i] = isprint((unsigned char)text[i]) ? text[i] : '?';
    out[i] = '\0';
    return out;
}

uint64_t text_hash(const char *part, ...)
{
    uint64_t hash = 0xcbf29ce484222325u;
    va_list parts;
    va_start(parts, part);
    for (; part; part = va_arg(parts, const char *)) {
        for (; *part; part++)
            hash = (hash ^ (uint8_t)*part) * 0x100000001b3u;
        hash = (hash ^ 0xff) * 0x100000001b3u; /* so that parts do not run into each other */
    }
    va_end(parts);
    return hash;
}
