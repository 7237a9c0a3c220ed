/* visits: what guests held in RAM when they left this host, kept on disk for when they come back: then only what they
 * have written since has to travel (migrate/image.h).
 *
 *   visits_keep(RAM file) -> [drover-migrate keep] -> visits_find() -> visits_forget()
 *
 * The memory of guests at rest is nothing that a host should have unasked: it is off unless `max_bytes` says otherwise.
 * Images are sealed; their keys are in `key_directory`, which is on tmpfs, so that neither a stolen disk nor a reboot
 * leaves anything to read. An image goes when the VM comes back or is deleted (the controllers say so), when it is
 * `max_age_ms` old, when a newer one needs its room, when it turns out damaged, and when hostd starts and finds it
 * incomplete or not wanted any more.
 *
 * Images are hints: all failures are logged, and nothing else follows from them. Single-threaded, on the loop. */
#ifndef HOSTD_VISITS_H
#define HOSTD_VISITS_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

struct visits;

struct visits_options {
    uv_loop_t *loop;
    const char *program;          /* drover-migrate */
    const char *directory;        /* of the images */
    const char *key_directory;    /* of their keys; on tmpfs */
    const char *memory_directory; /* of RAM files */
    uint64_t max_bytes;           /* of all images together; 0: none is kept */
    uint64_t max_age_ms;
};

/* Removes what an earlier hostd left behind half done. `options` is copied, its strings are lent. Take: visits_close().
 */
struct visits *visits_open(const struct visits_options *options);
/* Keeping under way ends with this process. NULL is fine. */
void visits_close(struct visits *visits);

/* The guest has left for good, and no process uses its RAM: takes the file, and removes it sooner or later. */
void visits_keep(struct visits *visits, const char *vm_id, const char *ram_path);
/* True: there is an image of it. */
bool visits_find(
    const struct visits *visits, const char *vm_id, char path[static PATH_MAX], char key_path[static PATH_MAX]);
/* Removes the image of the VM, also one that is being made. */
void visits_forget(struct visits *visits, const char *vm_id);
/* Removes what is too old. */
void visits_expire(struct visits *visits, uint64_t now_ms);
/* RAM of guests that have left which is not given back yet. */
uint64_t visits_memory_bytes(const struct visits *visits);
/* Gives up the oldest image that is still being made, so that its RAM comes back at once; false: there is none. */
bool visits_yield(struct visits *visits);
/* The VMs of which there is an image; no more than LIMITS_VISITS. The array is the caller's, the strings are lent until
 * something changes. */
char **visits_list(const struct visits *visits, size_t *count);

#endif
