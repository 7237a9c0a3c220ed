/* Making disk images. The file is there already, empty (storage/place.h); this gives it its size and, for qcow2, its
 * header, which qemu-img writes as a child process that is bounded in time and killed when nobody waits for it. */
#ifndef STORAGE_IMAGE_H
#define STORAGE_IMAGE_H

#include <uv.h>

#include "base/err.h"

struct image_config {
    const char *qemu_img; /* program */
    const char *path;
    const char *format;                   /* raw or qcow2 */
    uint64_t bytes;                       /* as the guest sees it */
    const char *backing, *backing_format; /* qcow2: what it reads from where nothing was written; NULL: nothing */
};

struct image;
/* `err` NULL: it is made. Exactly once, never from inside image_make(). */
typedef void (*image_fn)(void *user, const struct err *err);
/* Take: image_free(), also after `fn`. */
MUST_CHECK int image_make(
    uv_loop_t *loop, const struct image_config *config, image_fn fn, void *user, struct err *err, struct image **out);
/* Before `fn` was called: it will not be. NULL is fine. */
void image_free(struct image *image);

#endif
