/* mac: the address of one network card as people write it, 52:54:00:12:34:56. Pure. */
#ifndef BASE_MAC_H
#define BASE_MAC_H

#include <stdbool.h>
#include <stdint.h>

#define MAC_BYTES 6

/* False, and `out` is untouched: not of that form, or the address of many stations (multicast) or of none (all zeros).
 * Nothing may follow it; either case of the digits will do. */
bool mac_parse(const char *text, uint8_t out[static MAC_BYTES]);

#endif
