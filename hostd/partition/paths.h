/* Where the files of a partition are: one directory each, below host.directory, and its RAM file. Pure. */
#ifndef HOSTD_PARTITION_PATHS_H
#define HOSTD_PARTITION_PATHS_H

#include <limits.h>
#include <stdbool.h>

/* A UNIX socket's path has at most 107 bytes; the longest below a host.directory is "/partitions/" + id (36) +
 * "/qmp-engine.sock" (the engine makes a socket of its own beside its control socket: "/eng.sock.state"). */
#define PATHS_DIRECTORY_MAX (107 - 12 - 36 - 16)
#define PATHS_ID_MAX        64 /* with the NUL */

enum path_file {
    PATH_RECORD,
    PATH_QMP,
    PATH_QMP_ENGINE,
    PATH_SERIAL,
    PATH_SERIAL_LOG,
    PATH_QEMU_LOG,
    PATH_ENGINE_CONFIG,
    PATH_ENGINE_CONTROL,
    PATH_ENGINE_STATE, /* the device state on its way through QEMU: the socket of migrate/statepipe */
    PATH_ENGINE_DISKS, /* disks on their way through QEMU: of migrate/relay */
    PATH_ENGINE_RECORD,
    PATH_ENGINE_PREPARED, /* a record that may follow: of migrate/record */
    PATH_ENGINE_LOG,
    PATH_ADDRESSES, /* hostd/heard.h */
};

/* Ids come from outside and become names of files. */
bool paths_vm_id_ok(const char *id);        /* a UUID in lower case */
bool paths_migration_id_ok(const char *id); /* 1 to 63 letters, digits, '-', '_' and '.', not beginning with '.' */

/* Each writes into `out` and returns it. */
const char *paths_directory(const char *host_directory, const char *vm_id, char out[static PATH_MAX]);
const char *paths_file(const char *directory, enum path_file file, char out[static PATH_MAX]);
const char *paths_ram(const char *memory_directory, const char *vm_id, char out[static PATH_MAX]);

#endif
