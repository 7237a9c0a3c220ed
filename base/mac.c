#include "base/mac.h"

#include <string.h>

static int digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

bool mac_parse(const char *text, uint8_t out[static MAC_BYTES])
{
    static const uint8_t nobody[MAC_BYTES];
    uint8_t mac[MAC_BYTES];
    for (int i = 0; i < MAC_BYTES; i++, text += 3) {
        int high = digit(text[0]), low = high < 0 ? -1 : digit(text[1]);
        if (low < 0 || text[2] != (i < MAC_BYTES - 1 ? ':' : '\0'))
            return false;
        mac[i] = (uint8_t)(high << 4 | low);
    }
    if (mac[0] & 1 || memcmp(mac, nobody, sizeof mac) == 0)
        return false;
    memcpy(out, mac, sizeof mac);
    return true;
}
