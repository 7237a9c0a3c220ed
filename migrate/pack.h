/* pack: a piece of a byte stream as an LZ4 block. QEMU's device state is mostly zeros (a virtio device describes 1,024
 * queues, whether it has them or not), and it crosses the slow part of the channel while the guest stands still. Pure.
 */
#ifndef MIGRATE_PACK_H
#define MIGRATE_PACK_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

/* No piece is longer, packed or not. */
#define PACK_BYTES_MAX (256u << 10)

/* Packs `len` (1..PACK_BYTES_MAX) bytes into `out`, which has room for as many. Returns how many there are; 0: they do
 * not become shorter, so send them as they are. */
size_t pack(const uint8_t *data, size_t len, uint8_t *out);
/* The reverse, into `raw_len` bytes; `raw_len` 0 says that `data` is not packed. Both lengths are checked (there is no
 * empty piece). Returns where the bytes are: `data` or `out`, which has room for PACK_BYTES_MAX. NULL with
 * ERR_PROTOCOL: they make no sense.
 */
const uint8_t *unpack(const uint8_t *data, size_t len, size_t raw_len, struct err *err, uint8_t *out);

#define PACK_HEAD_BYTES 4u

/* The same with the unpacked length in front (0: not packed), as a tunnel sends it. `out` has room for PACK_HEAD_BYTES
 * more than `len`; returns how many there are. */
size_t pack_headed(const uint8_t *data, size_t len, uint8_t *out);
/* The reverse. Returns where the bytes are, as unpack() does, and how many: 1..PACK_BYTES_MAX. */
const uint8_t *unpack_headed(const uint8_t *data, size_t len, struct err *err, uint8_t *out, size_t *bytes);

#endif
