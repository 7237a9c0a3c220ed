/* Clean-up attributes: `cleanup_fd int fd = -1;`, `cleanup_free char *text = NULL;`, `cleanup_buf struct buf b = {0};`.
 */
#ifndef BASE_CLEANUP_H
#define BASE_CLEANUP_H

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/buf.h"

static inline void cleanup_fd_fn(int *fd)
{
    if (*fd >= 0)
        close(*fd);
}

static inline void cleanup_free_fn(void *p)
{
    free(*(void **)p);
}

static inline void cleanup_file_fn(FILE **f)
{
    if (*f)
        fclose(*f);
}

#define cleanup_fd   __attribute__((cleanup(cleanup_fd_fn)))
#define cleanup_free __attribute__((cleanup(cleanup_free_fn)))
#define cleanup_file __attribute__((cleanup(cleanup_file_fn)))
#define cleanup_buf  __attribute__((cleanup(buf_free)))

#endif
