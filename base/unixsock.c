#include "base/unixsock.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

static int unixsock_make(const char *path, int flags, struct err *err, struct sockaddr_un *address)
{
    *address = (struct sockaddr_un){.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof address->sun_path)
        return err_set(err, ERR_INVALID, "socket path longer than %zu bytes: %s", sizeof address->sun_path - 1, path);
    strcpy(address->sun_path, path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | flags, 0);
    return fd < 0 ? err_errno(err, ERR_INTERNAL, errno, "cannot make a socket") : fd;
}

int unixsock_listen(const char *path, int backlog, struct err *err, int *out)
{
    struct sockaddr_un address;
    int fd = unixsock_make(path, 0, err, &address);
    if (fd < 0)
        return -1;
    unlink(path);
    mode_t old = umask(0177);
    int bound = bind(fd, (struct sockaddr *)&address, sizeof address);
    umask(old);
    if (bound < 0 || listen(fd, backlog) < 0) {
        int why = errno;
        close(fd);
        return err_errno(err, ERR_INTERNAL, why, "cannot listen at %s", path);
    }
    *out = fd;
    return 0;
}

int unixsock_connect(const char *path, struct err *err, int *out)
{
    struct sockaddr_un address;
    int fd = unixsock_make(path, SOCK_NONBLOCK, err, &address);
    if (fd < 0)
        return -1;
    if (connect(fd, (struct sockaddr *)&address, sizeof address) < 0) {
        int why = errno;
        close(fd);
        return err_errno(err, ERR_UNAVAILABLE, why, "cannot connect to %s", path);
    }
    *out = fd;
    return 0;
}
