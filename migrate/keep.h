/* keep: `drover-migrate keep`: writes an image (image.h) of the RAM of a guest that has left, and frees that RAM. */
#ifndef MIGRATE_KEEP_H
#define MIGRATE_KEEP_H

/* Arguments: RAM file, image, its key's file, the most bytes that the image may have. Returns the exit status; the RAM
 * file is gone either way. */
int keep_run(char *const argv[]);

#define KEEP_ARGUMENTS 4

#endif
