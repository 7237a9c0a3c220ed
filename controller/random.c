#include "controller/random.h"

#include <stdint.h>
#include <stdio.h>
#include <sys/random.h>

#include "base/ensure.h"

void random_uuid(char out[static RANDOM_UUID])
{
    uint8_t b[16];
    ENSURE(getrandom(b, sizeof b, 0) == (ssize_t)sizeof b);
    b[6] = (uint8_t)((b[6] & 0x0f) | 0x40);
    b[8] = (uint8_t)((b[8] & 0x3f) | 0x80);
    snprintf(out, RANDOM_UUID, "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", b[0], b[1], b[2],
        b[3], b[4], b[5], b[6], b[7], b[8], b[9], b[10], b[11], b[12], b[13], b[14], b[15]);
}

void random_mac(char out[static RANDOM_MAC])
{
    uint8_t b[3];
    ENSURE(getrandom(b, sizeof b, 0) == (ssize_t)sizeof b);
    snprintf(out, RANDOM_MAC, "52:54:00:%02x:%02x:%02x", b[0], b[1], b[2]);
}
